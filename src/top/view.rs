//! The drawing: state in, cells of the screen out.
//!
//! Reads no key and knows no terminal. Colours are the terminal's own sixteen, and nothing is said by colour alone.

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row, Table, TableState, Wrap};

use super::rows::{self, Mark, per_second};
use super::sight::{Edge, Totals};
use super::state::{Link, Mode, State};
use crate::cli::Tab;
use crate::columns::{self, Side, harmless};

/// Between two columns.
const GAP: u16 = 2;
/// Names are not cut further than this while other columns can go.
const NAMES: usize = 12;
/// Names are not cut further than this.
const NARROW: usize = 6;
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

const HELP: &str = " Tab, 1 to 4    edges, tools, streams, sessions
 Up, Down       move; PgUp, PgDn, Home, End too
 Enter          open an edge: its tools and streams
 Esc            back; drops a filter first
 Left, Right    sort by the column beside
 r              the other way round
 /              filter by names; Enter keeps, Esc drops it
 ?              this help
 q, Ctrl-C      quit

 RATE, ERR/S, P50 and P99 are of the last window;
 CALLS and ERRORS since the proxy's start.
 failing     more than 5 % errors
 slow        P99 above 5 s
 undeclared  it or a tool of it is not declared
 unused      declared, never called
 declared    its calls cannot be told apart, or are not read";

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let notice = notice(state);
    let summary = state.sight.as_ref().map(|sight| totals_line(&sight.totals)).unwrap_or_default();
    let width = frame.area().width;
    let [title, totals, told, tabs, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(lines_of(&summary, width).max(1)),
        Constraint::Length(lines_of(&notice, width)),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, state);
    frame.render_widget(Paragraph::new(summary).wrap(Wrap { trim: true }), totals);
    let red = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(notice).style(red).wrap(Wrap { trim: true }), told);
    draw_tabs(frame, tabs, state);
    match &state.scope {
        None => draw_table(frame, body, state, state.tab),
        Some(_) => draw_edge(frame, body, state),
    }
    draw_keys(frame, keys, state);
    if state.mode == Mode::Help {
        draw_help(frame);
    }
}

/// What is wrong, if something is.
fn notice(state: &State) -> String {
    let seen = state.sight.as_ref();
    match (&state.link, seen) {
        (Link::Away(why), Some(sight)) => {
            format!("{}; asking again. Below is what was seen at {}", harmless(why), time(&sight.at))
        }
        (Link::Away(why), None) => format!("{}; asking again", harmless(why)),
        (_, Some(sight)) if sight.truncated => {
            "There is more than the proxy sends: the busiest edges and tools, the oldest streams are shown"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// How many lines a text takes when it is broken between words, or one more; there are not many.
fn lines_of(text: &str, room: u16) -> u16 {
    let (takes, room) = (columns::width(text), usize::from(room));
    let broken = takes.div_ceil((room * 9 / 10).max(1));
    let lines = if takes <= room { takes.min(1) } else { broken };
    u16::try_from(lines).unwrap_or(u16::MAX).min(4)
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let (word, colour) = match state.link {
        Link::Asking => ("asking", Color::Yellow),
        Link::Live => ("live", Color::Green),
        Link::Away(_) => ("away", Color::Red),
    };
    let mut spans = vec![
        Span::styled("kagent-proxy top", BOLD),
        Span::raw(format!("  {}  ", harmless(&state.url))),
        Span::styled(word, Style::new().fg(colour).add_modifier(Modifier::BOLD)),
    ];
    if let Some(sight) = &state.sight {
        let at = format!("  {}, rates of {} s", time(&sight.at), sight.window_seconds);
        spans.push(Span::raw(at));
    }
    frame.render_widget(Line::from(spans), area);
}

/// The time of day of a moment in UTC, to the second.
fn time(at: &str) -> String {
    let time = at.split_once('T').map_or(at, |(_, time)| time);
    let seconds = time.split(['.', 'Z']).next().unwrap_or_default();
    format!("{} UTC", harmless(seconds))
}

/// The totals in one line; the first line of plain text, too.
pub(super) fn totals_line(totals: &Totals) -> String {
    format!(
        "calls {}  errors {}  rate {}/s  errors {}/s  open requests {}  open streams {}  routes {}  refused {}",
        totals.calls,
        totals.errors,
        per_second(totals.rate),
        per_second(totals.error_rate),
        totals.open_requests,
        totals.open_streams,
        totals.routes,
        totals.refused_routes,
    )
}

fn draw_tabs(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let mut spans = Vec::new();
    for (digit, tab) in [Tab::Edges, Tab::Tools, Tab::Streams, Tab::Sessions].iter().enumerate() {
        let text = match &state.scope {
            None => format!(" {} {} {} ", digit + 1, word(*tab), state.count(*tab)),
            Some(_) => format!(" {} {} ", digit + 1, word(*tab)),
        };
        let current = state.scope.is_none() && state.tab == *tab;
        let style = if current { Style::new().add_modifier(Modifier::REVERSED) } else { DIM };
        spans.push(Span::styled(text, style));
    }
    frame.render_widget(Line::from(spans), area);
}

fn word(tab: Tab) -> &'static str {
    match tab {
        Tab::Edges => "edges",
        Tab::Tools => "tools",
        Tab::Streams => "streams",
        Tab::Sessions => "sessions",
    }
}

/// The edge that was opened: what it is, its tools, its streams.
fn draw_edge(frame: &mut Frame<'_>, area: Rect, state: &mut State) {
    // Its titles take a line, and an empty list says that it is.
    let streams = u16::try_from(state.count(Tab::Streams).max(1)).unwrap_or(u16::MAX);
    let streams = streams.saturating_add(1).min(area.height / 3);
    let [head, facts, tools_name, tools, streams_name, streams] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
        Constraint::Length(streams),
    ])
    .areas(area);
    if let Some(scope) = &state.scope {
        let (from, to) = (harmless(&scope.from), harmless(&scope.to));
        let text = format!("{from} → {to} ({})", harmless(&scope.protocol));
        frame.render_widget(Line::styled(text, BOLD), head);
    }
    let (text, style) = match state.opened() {
        Some(edge) => (edge_line(edge), Style::new()),
        None => ("this edge is gone".to_owned(), DIM),
    };
    frame.render_widget(Line::styled(text, style), facts);
    for (tab, name, area) in
        [(Tab::Tools, tools_name, tools), (Tab::Streams, streams_name, streams)]
    {
        let style = if state.tab == tab { BOLD.add_modifier(Modifier::REVERSED) } else { DIM };
        let text = format!(" {} {} ", word(tab), state.count(tab));
        frame.render_widget(Line::from(Span::styled(text, style)), name);
        draw_table(frame, area, state, tab);
    }
}

fn edge_line(edge: &Edge) -> String {
    let columns = rows::columns(Tab::Edges).iter().zip(rows::edge(edge).cells).skip(3);
    let facts: Vec<_> = columns
        .map(|((title, _), cell)| format!("{} {}", title.to_lowercase(), cell.text))
        .collect();
    facts.join("  ")
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, state: &mut State, tab: Tab) {
    let all = state.rows(tab);
    let scoped = state.scope.is_some();
    let room = usize::from(area.height.saturating_sub(1));
    let list = state.list_mut(tab);
    list.scroll(room);
    let order = list.order.clone();
    let titles: Vec<String> = rows::columns(tab)
        .iter()
        .enumerate()
        .map(|(at, (title, _))| match (order.by == at, order.descending) {
            (false, _) => (*title).to_owned(),
            (true, true) => format!("{title}▼"),
            (true, false) => format!("{title}▲"),
        })
        .collect();
    let yielding = rows::yielding(tab, scoped).iter().filter(|at| **at != order.by);
    let places = places(&titles, &all, tab, yielding, usize::from(area.width));
    let cells = |texts: &[&str]| {
        let cell = |place: &Place| {
            let text = texts.get(place.column).copied().unwrap_or_default();
            let text = Line::from(columns::cut(text, place.width).into_owned());
            let right = place.side == Side::Right;
            Cell::from(if right { text.alignment(Alignment::Right) } else { text })
        };
        Row::new(places.iter().map(cell).collect::<Vec<_>>())
    };
    let header = cells(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    let shown = all.iter().skip(list.first).take(room).map(|row| {
        let texts: Vec<_> = row.cells.iter().map(|cell| &*cell.text).collect();
        cells(&texts).style(style_of(row.mark))
    });
    let constraints = places.iter().map(|place| u16::try_from(place.width).unwrap_or(u16::MAX));
    let table = Table::new(shown, constraints.map(Constraint::Length))
        .header(header.style(BOLD))
        .column_spacing(GAP)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let at = list.at.saturating_sub(list.first);
    let has_keys = state.tab == tab && !all.is_empty();
    let mut selected = TableState::new().with_selected(has_keys.then_some(at));
    frame.render_stateful_widget(table, area, &mut selected);
    if all.is_empty() {
        let below = Rect { y: area.y.saturating_add(1), height: area.height.min(2) / 2, ..area };
        frame.render_widget(Line::styled(nothing(state, tab), DIM), below.intersection(area));
    }
}

/// Why a table is empty.
fn nothing(state: &State, tab: Tab) -> String {
    let filter = &state.list(tab).order.filter;
    if state.sight.is_none() {
        return "nothing has been heard yet".to_owned();
    }
    if !filter.is_empty() {
        return format!("nothing has {:?} in a name; Esc drops the filter", &**filter);
    }
    let text = match tab {
        Tab::Edges => "no calls yet, and nobody declares any: edges come with the first call",
        Tab::Tools => "no calls yet",
        Tab::Streams => "no stream is open",
        Tab::Sessions => "no sessions yet",
    };
    text.to_owned()
}

fn style_of(mark: Mark) -> Style {
    match mark {
        Mark::None => Style::new(),
        Mark::Failing => Style::new().fg(Color::Red),
        Mark::Slow => Style::new().fg(Color::Yellow),
        Mark::Undeclared => Style::new().fg(Color::Magenta),
        Mark::Unused => DIM,
    }
}

/// A column that is shown.
#[derive(Clone, Copy, Debug)]
struct Place {
    column: usize,
    side: Side,
    width: usize,
}

/// Columns as wide as their cells. Where that is too much, names are cut, the widest first, and others go.
fn places<'y>(
    titles: &[String],
    all: &[rows::Row],
    tab: Tab,
    yielding: impl Iterator<Item = &'y usize>,
    room: usize,
) -> Vec<Place> {
    let mut places = Vec::new();
    for (column, (title, (_, side))) in titles.iter().zip(rows::columns(tab)).enumerate() {
        let cells = all.iter().filter_map(|row| row.cells.get(column));
        let widest = cells.map(|cell| columns::width(&cell.text)).max().unwrap_or(0);
        places.push(Place { column, side: *side, width: columns::width(title).max(widest) });
    }
    let cut = |place: &Place, least: usize| match place.side {
        Side::Left => place.width.min(least),
        Side::Right => place.width,
    };
    let takes = |places: &[Place], least: usize| {
        let gaps = usize::from(GAP) * places.len().saturating_sub(1);
        places.iter().map(|place| cut(place, least)).sum::<usize>() + gaps
    };
    for column in yielding {
        if takes(&places, NAMES) > room {
            places.retain(|place| place.column != *column);
        }
    }
    let mut excess = takes(&places, usize::MAX).saturating_sub(room);
    while excess > 0 {
        let names = places.iter_mut().filter(|place| place.side == Side::Left);
        let widest = names.max_by_key(|place| place.width);
        let Some(widest) = widest.filter(|place| place.width > NARROW) else { break };
        widest.width -= 1;
        excess -= 1;
    }
    places
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let filter = &state.list(state.tab).order.filter;
    let text = match state.mode {
        Mode::Filter => format!("/{filter}▏  Enter keeps the filter, Esc drops it"),
        _ if !filter.is_empty() => {
            format!("filter {filter:?}  Esc drops it  / changes it  ? help  q quit")
        }
        _ if state.scope.is_some() => {
            "Esc back  Tab tools or streams  / filter  ←→ sort  r reverse  ? help  q quit"
                .to_owned()
        }
        _ if state.tab == Tab::Edges => {
            "Enter open  Tab next  / filter  ←→ sort  r reverse  ? help  q quit".to_owned()
        }
        _ => "Tab next  / filter  ←→ sort  r reverse  ? help  q quit".to_owned(),
    };
    frame.render_widget(Line::from(text), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX).saturating_add(2);
    let area = frame.area().centered(Constraint::Max(58), Constraint::Max(lines));
    frame.render_widget(Clear, area);
    let block = Block::bordered().title(" keys ").title_bottom(" Esc closes ");
    frame.render_widget(Paragraph::new(HELP).block(block), area);
}

#[cfg(test)]
mod tests;
