//! The graph in Graphviz's language.
//!
//! Pure text. Names are quoted, so that none can be anything but a name.

use std::fmt::Write;

use super::edges::Edge;

/// Tools of one edge that are named.
const MAX_TOOLS: usize = 5;

/// The whole graph.
#[must_use]
pub fn dot(edges: &[Edge]) -> String {
    let mut text =
        "digraph kagent {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n".to_owned();
    for edge in edges {
        let style = match edge.state() {
            "undeclared" => "style=dashed, color=darkorange",
            "unused" | "declared" => "style=dotted, color=gray",
            "failing" => "color=red",
            "slow" => "color=goldenrod",
            _ => "color=black",
        };
        let (from, to) = (quoted(&edge.from), quoted(edge.to_node()));
        let mut said = Vec::new();
        if edge.total.calls > 0 {
            said.push(format!("{} calls, {} errors", edge.total.calls, edge.total.errors));
        }
        let undeclared = edge.undeclared_tools.iter().map(|(tool, _)| tool);
        said.extend(few("undeclared", undeclared));
        said.extend(few("unused", edge.unused_tools.iter()));
        let label = match said.is_empty() {
            true => String::new(),
            false => format!(", label=\"{}\"", said.join("\\n")),
        };
        // Writing into text does not fail.
        let _infallible = writeln!(text, "  {from} -> {to} [{style}{label}];");
    }
    text.push_str("}\n");
    text
}

/// These tools, the first few by name; `None` if there are none.
fn few<'t>(what: &str, mut tools: impl ExactSizeIterator<Item = &'t String>) -> Option<String> {
    let more = tools.len().saturating_sub(MAX_TOOLS);
    let mut names: Vec<_> = tools.by_ref().take(MAX_TOOLS).map(|tool| escaped(tool)).collect();
    if more > 0 {
        names.push(format!("{more} more"));
    }
    (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
}

/// A name between quotes (Graphviz, "The DOT Language": only the quote is escaped, and a backslash at the end).
fn quoted(name: &str) -> String {
    format!("\"{}\"", escaped(name))
}

fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"")
}
