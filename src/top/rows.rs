//! The tables: their columns, the cells of each row, and the order and the choice of rows.
//!
//! The same for a screen and for plain text. Knows neither.

use std::cmp::Ordering;

use super::sight::{Edge, Scope, Session, Sight, Stream, Tool};
use crate::cli::Tab;
use crate::columns::{Side, harmless};

/// A title, and where its cells stand.
pub(super) type Column = (&'static str, Side);

const fn name(title: &'static str) -> Column {
    (title, Side::Left)
}

const fn number(title: &'static str) -> Column {
    (title, Side::Right)
}

const EDGES: &[Column] = &[
    name("FROM"),
    name("TO"),
    name("PROTOCOL"),
    name("STATE"),
    number("CALLS"),
    number("ERRORS"),
    number("RATE"),
    number("ERR/S"),
    number("P50"),
    number("P99"),
    number("STREAMS"),
];
const TOOLS: &[Column] = &[
    name("TOOL"),
    name("METHOD"),
    name("ROUTE"),
    name("CALLER"),
    name("DECLARED"),
    number("CALLS"),
    number("ERRORS"),
    number("RATE"),
    number("ERR/S"),
    number("P50"),
    number("P99"),
];
const STREAMS: &[Column] =
    &[name("ROUTE"), name("CALLER"), name("PATH"), name("SESSION"), number("AGE")];
const SESSIONS: &[Column] = &[
    name("ROUTE"),
    number("OPENED"),
    number("CARRIED"),
    number("REVIVED"),
    number("LOST"),
    number("ANSWERED LOST"),
    number("CLOSED"),
];

/// The columns of a table.
pub(super) fn columns(tab: Tab) -> &'static [Column] {
    match tab {
        Tab::Edges => EDGES,
        Tab::Tools => TOOLS,
        Tab::Streams => STREAMS,
        Tab::Sessions => SESSIONS,
    }
}

/// Which columns go first where there is not room for all, the first one first. Of the table of one edge those go
/// before that say which edge it is.
pub(super) fn yielding(tab: Tab, scoped: bool) -> &'static [usize] {
    match (tab, scoped) {
        (Tab::Edges, _) => &[2, 5, 4, 10, 7],
        (Tab::Tools, false) => &[4, 6, 5, 8, 1],
        (Tab::Tools, true) => &[2, 3, 4, 6, 5, 8, 1],
        (Tab::Streams, false) => &[3, 2],
        (Tab::Streams, true) => &[0, 1, 3],
        (Tab::Sessions, _) => &[6, 1, 2],
    }
}

/// By which column a table is sorted at first, the greatest first: the busiest, or the oldest.
pub(super) fn first_sort(tab: Tab) -> usize {
    match tab {
        Tab::Edges => 6,
        Tab::Tools => 7,
        Tab::Streams => 4,
        Tab::Sessions => 2,
    }
}

/// What a row is to stand out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    None,
    Failing,
    Slow,
    Undeclared,
    Unused,
}

/// What a cell shows, and by what it is sorted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    by: By,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Text,
    Number(f64),
    /// Behind all others, in either order.
    Nothing,
}

/// One row of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    /// What it is about, so that it is found again in the next moment.
    pub(super) key: String,
    pub(super) cells: Vec<Cell>,
    pub(super) mark: Mark,
    /// The edge that it is.
    pub(super) scope: Option<Scope>,
}

/// How a table is shown.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The column.
    pub(super) by: usize,
    pub(super) descending: bool,
    /// Only rows that have it in one of their texts, whatever the case.
    pub(super) filter: String,
}

// === impl Order ===

impl Order {
    pub(super) fn of(tab: Tab) -> Self {
        Self { by: first_sort(tab), descending: true, filter: String::new() }
    }
}

/// The rows of a table, those of one edge if there is a scope, chosen and sorted.
pub(super) fn rows(sight: &Sight, tab: Tab, scope: Option<&Scope>, order: &Order) -> Vec<Row> {
    let mut rows = all(sight, tab, scope);
    let wanted = order.filter.to_lowercase();
    rows.retain(|row| row.has(&wanted));
    rows.sort_by(|one, other| {
        let cells = (one.cells.get(order.by), other.cells.get(order.by));
        let (Some(a), Some(b)) = cells else { return Ordering::Equal };
        a.compare(b, order.descending).then_with(|| one.key.cmp(&other.key))
    });
    rows
}

fn all(sight: &Sight, tab: Tab, scope: Option<&Scope>) -> Vec<Row> {
    match tab {
        Tab::Edges => sight.edges.iter().map(edge).collect(),
        Tab::Tools => {
            let within = |tool: &&Tool| scope.is_none_or(|scope| scope.calls(tool));
            sight.tools.iter().filter(within).map(tool).collect()
        }
        Tab::Streams => {
            let within = |stream: &&Stream| scope.is_none_or(|scope| scope.carries(stream));
            let streams = sight.streams.iter().filter(within);
            // Two streams may be alike in all that they say.
            streams.enumerate().map(|(at, one)| stream(at, one)).collect()
        }
        Tab::Sessions => sight.sessions.iter().map(session).collect(),
    }
}

pub(super) fn edge(edge: &Edge) -> Row {
    let mark = match &*edge.state {
        "failing" => Mark::Failing,
        "slow" => Mark::Slow,
        "undeclared" => Mark::Undeclared,
        "unused" | "declared" => Mark::Unused,
        _ => Mark::None,
    };
    let cells = vec![
        Cell::text(&edge.from),
        Cell::text(&edge.to),
        Cell::text(&edge.protocol),
        Cell::text(&edge.state),
        Cell::count(edge.calls),
        Cell::count(edge.errors),
        Cell::rate(edge.rate),
        Cell::rate(edge.error_rate),
        Cell::quantile(edge.p50_ms, edge.p50_bound.as_deref()),
        Cell::quantile(edge.p99_ms, edge.p99_bound.as_deref()),
        Cell::count(edge.open_streams),
    ];
    let scope =
        Scope { from: edge.from.clone(), to: edge.to.clone(), protocol: edge.protocol.clone() };
    let key = [&*edge.from, &*edge.to, &*edge.protocol].join("\n");
    Row { key, cells, mark, scope: Some(scope) }
}

fn tool(tool: &Tool) -> Row {
    // As the state of an edge is found.
    let failing = tool.error_rate > 0.05 * tool.rate;
    let mark = match tool.declared {
        _ if failing => Mark::Failing,
        Some(false) => Mark::Undeclared,
        Some(true) if tool.calls == 0 => Mark::Unused,
        _ => Mark::None,
    };
    let declared = match tool.declared {
        Some(true) => "yes",
        Some(false) => "no",
        None => "",
    };
    let cells = vec![
        Cell::text(&tool.tool),
        Cell::text(&tool.method),
        Cell::text(&tool.route),
        Cell::text(&tool.caller),
        Cell::text(declared),
        Cell::count(tool.calls),
        Cell::count(tool.errors),
        Cell::rate(tool.rate),
        Cell::rate(tool.error_rate),
        Cell::quantile(tool.p50_ms, tool.p50_bound.as_deref()),
        Cell::quantile(tool.p99_ms, tool.p99_bound.as_deref()),
    ];
    let key = [&tool.caller, &tool.route, &tool.protocol, &tool.method, &tool.tool];
    Row { key: key.map(String::as_str).join("\n"), cells, mark, scope: None }
}

fn stream(at: usize, stream: &Stream) -> Row {
    let session = stream.session.as_deref().unwrap_or_default();
    let cells = vec![
        Cell::text(&stream.route),
        Cell::text(&stream.caller),
        Cell::text(&stream.path),
        Cell::text(session),
        Cell { text: age(stream.age_seconds), by: By::Number(stream.age_seconds) },
    ];
    let mut key = [&stream.route, &stream.caller, &stream.path, session].join("\n");
    if session.is_empty() {
        key.push_str(&at.to_string());
    }
    Row { key, cells, mark: Mark::None, scope: None }
}

fn session(session: &Session) -> Row {
    let numbers = [
        session.opened,
        session.carried,
        session.revived,
        session.lost,
        session.answered_lost,
        session.closed,
    ];
    let mut cells = vec![Cell::text(&session.route)];
    cells.extend(numbers.map(Cell::count));
    let lost = session.lost + session.answered_lost > 0;
    let mark = if lost { Mark::Failing } else { Mark::None };
    Row { key: session.route.clone(), cells, mark, scope: None }
}

// === impl Row ===

impl Row {
    fn has(&self, wanted: &str) -> bool {
        let texts = self.cells.iter().filter(|cell| !matches!(cell.by, By::Number(_)));
        wanted.is_empty() || texts.map(|cell| &cell.text).any(|text| is_within(wanted, text))
    }
}

fn is_within(wanted: &str, text: &str) -> bool {
    text.to_lowercase().contains(wanted)
}

// === impl Cell ===

impl Cell {
    fn text(text: &str) -> Self {
        let by = if text.is_empty() { By::Nothing } else { By::Text };
        let text = if text.is_empty() { "-".to_owned() } else { harmless(text).into_owned() };
        Self { text, by }
    }

    #[allow(clippy::cast_precision_loss, reason = "sorted by it, never shown")]
    fn count(count: u64) -> Self {
        Self { text: count.to_string(), by: By::Number(count as f64) }
    }

    fn rate(rate: f64) -> Self {
        Self { text: per_second(rate), by: By::Number(rate) }
    }

    /// Milliseconds, or a bound of them.
    fn quantile(time: Option<f64>, bound: Option<&str>) -> Self {
        let Some(time) = time else { return Self { text: "-".to_owned(), by: By::Nothing } };
        let (sign, by) = match bound {
            // In front of what lies at the bound, and behind it.
            Some("below") => ("<", time.next_down()),
            Some("above") => (">", time.next_up()),
            _ => ("", time),
        };
        Self { text: format!("{sign}{}", duration(time)), by: By::Number(by) }
    }

    fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let order = match (self.by, other.by) {
            (By::Nothing, By::Nothing) => return Ordering::Equal,
            (By::Nothing, _) => return Ordering::Greater,
            (_, By::Nothing) => return Ordering::Less,
            (By::Number(one), By::Number(other)) => one.total_cmp(&other),
            _ => self.text.cmp(&other.text),
        };
        if descending { order.reverse() } else { order }
    }
}

/// A number per second, in three digits or so.
pub(super) fn per_second(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.2}"),
        rate if rate < 100.0 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// Milliseconds with their unit.
fn duration(milliseconds: f64) -> String {
    match milliseconds {
        time if time < 10.0 => format!("{time:.1}ms"),
        time if time < 1000.0 => format!("{time:.0}ms"),
        time if time < 100_000.0 => format!("{:.1}s", time / 1000.0),
        time => age(time / 1000.0),
    }
}

/// Seconds in their two greatest units.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` keeps within the bounds, and nobody sees a stream of 2^64 seconds"
)]
fn age(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, ..) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::samples;

    fn column(rows: &[Row], at: usize) -> Vec<&str> {
        rows.iter().map(|row| &*row.cells[at].text).collect()
    }

    fn sorted(tab: Tab, by: usize, descending: bool, shown: usize) -> Vec<String> {
        let order = Order { by, descending, filter: String::new() };
        let rows = rows(&samples::sight(), tab, None, &order);
        column(&rows, shown).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn every_column_sorts_both_ways_and_what_is_missing_stays_last() {
        // The columns P50 and TO.
        assert_eq!(sorted(Tab::Edges, 8, false, 8), ["3.1ms", "40ms", "6.2s", "-"]);
        assert_eq!(sorted(Tab::Edges, 8, true, 8), ["6.2s", "40ms", "3.1ms", "-"]);
        assert_eq!(sorted(Tab::Edges, 1, false, 1)[0], "helper.team-a");
        assert_eq!(sorted(Tab::Edges, 1, true, 1)[0], "tools.team-a");
        assert_eq!(sorted(Tab::Streams, 4, true, 4), ["2h03m", "12s"]);
        for tab in [Tab::Edges, Tab::Tools, Tab::Streams, Tab::Sessions] {
            for by in 0..columns(tab).len() {
                let (up, down) = (sorted(tab, by, false, by), sorted(tab, by, true, by));
                let real = |all: &[String]| {
                    all.iter().filter(|text| *text != "-").cloned().collect::<Vec<_>>()
                };
                let mut turned = real(&down);
                turned.reverse();
                assert_eq!(real(&up), turned, "{tab:?} {by}");
            }
        }
    }

    #[test]
    fn a_quantile_that_is_only_a_bound_says_so_and_sorts_beside_it() {
        let cells =
            [(0.5, Some("below")), (0.5, None), (300_000.0, None), (300_000.0, Some("above"))]
                .map(|(time, bound)| Cell::quantile(Some(time), bound));
        let texts = cells.each_ref().map(|cell| &*cell.text);
        assert_eq!(texts, ["<0.5ms", "0.5ms", "5m00s", ">5m00s"]);
        for pair in cells.windows(2) {
            assert_eq!(pair[0].compare(&pair[1], false), Ordering::Less);
        }
    }

    #[test]
    fn each_row_has_a_cell_for_each_column_and_a_key_of_its_own() {
        for tab in [Tab::Edges, Tab::Tools, Tab::Streams, Tab::Sessions] {
            let rows = rows(&samples::sight(), tab, None, &Order::of(tab));
            assert!(rows.len() > 1, "{tab:?}");
            let mut keys: Vec<_> = rows.iter().map(|row| &row.key).collect();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), rows.len(), "{tab:?}");
            for row in &rows {
                assert_eq!(row.cells.len(), columns(tab).len(), "{tab:?}");
            }
        }
    }

    #[test]
    fn a_filter_looks_at_names_whatever_their_case_and_not_at_numbers() {
        let chosen = |filter: &str| {
            let order = Order { filter: filter.to_owned(), ..Order::of(Tab::Edges) };
            rows(&samples::sight(), Tab::Edges, None, &order).len()
        };
        assert_eq!((chosen(""), chosen("TOOLS.team-A"), chosen("slow")), (4, 2, 1));
        assert_eq!((chosen("120"), chosen("nobody")), (0, 0));
    }

    #[test]
    fn a_scope_has_only_what_belongs_to_its_edge() {
        let sight = samples::sight();
        let scope =
            rows(&sight, Tab::Edges, None, &Order::of(Tab::Edges)).into_iter().find(|row| {
                row.cells[0].text == "team-a/parent" && row.cells[1].text == "tools.team-a"
            });
        let scope = scope.unwrap().scope;
        let tools = rows(&sight, Tab::Tools, scope.as_ref(), &Order::of(Tab::Tools));
        assert_eq!(column(&tools, 0), ["add", "\\u{1b}[2Jevil", "-"]);
        let streams = rows(&sight, Tab::Streams, scope.as_ref(), &Order::of(Tab::Streams));
        assert_eq!(column(&streams, 4), ["12s"]);
    }

    #[test]
    fn rows_are_marked_by_their_state() {
        let marks = |tab| {
            let rows = rows(&samples::sight(), tab, None, &Order::of(tab));
            rows.iter().map(|row| row.mark).collect::<Vec<_>>()
        };
        assert_eq!(marks(Tab::Edges), [Mark::None, Mark::Slow, Mark::Undeclared, Mark::Unused]);
        assert_eq!(marks(Tab::Tools), [Mark::None, Mark::Failing, Mark::None, Mark::None]);
        assert_eq!(marks(Tab::Sessions), [Mark::None, Mark::Failing]);
    }

    #[test]
    fn numbers_are_short() {
        for (rate, text) in [(0.0, "0"), (0.05, "0.05"), (42.25, "42.2"), (1234.5, "1234")] {
            assert_eq!(per_second(rate), text);
        }
        for (time, text) in [(0.04, "0.0ms"), (9.96, "10.0ms"), (999.0, "999ms"), (2500.0, "2.5s")]
        {
            assert_eq!(duration(time), text);
        }
        for (seconds, text) in
            [(59.9, "59s"), (61.0, "1m01s"), (7380.0, "2h03m"), (93_600.0, "1d02h"), (-1.0, "0s")]
        {
            assert_eq!(age(seconds), text);
        }
        assert_eq!(duration(120_000.0), "2m00s");
    }
}
