//! The graph in Graphviz's language.
//!
//! Pure text. Names are quoted, so that none can be anything but a name.

use std::fmt::Write;

use super::edges::Edge;

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
        let label = match edge.total.calls {
            0 => String::new(),
            calls => format!(", label=\"{calls} calls, {} errors\"", edge.total.errors),
        };
        // Writing into text does not fail.
        let _infallible = writeln!(text, "  {from} -> {to} [{style}{label}];");
    }
    text.push_str("}\n");
    text
}

/// A name between quotes (Graphviz, "The DOT Language": only the quote is escaped, and a backslash at the end).
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}
