//! What the screen shows, and what keys do to it.
//!
//! Draws nothing, asks nobody and reads no clock: moments of the proxy and keys come in, and the drawing asks for rows.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{self, Order, Row};
use super::sight::{Edge, Scope, Sight};
use crate::cli::Tab;
use crate::columns::Side;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Flow {
    Stay,
    Quit,
}

/// How it stands with the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing has come yet.
    Asking,
    Live,
    /// Why nothing comes.
    Away(String),
}

/// What keys mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Normal,
    /// They are text of the filter.
    Filter,
    Help,
}

/// Everything that is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) url: String,
    pub(super) sight: Option<Sight>,
    pub(super) link: Link,
    pub(super) mode: Mode,
    /// The table that keys act on.
    pub(super) tab: Tab,
    /// The edge that was opened.
    pub(super) scope: Option<Scope>,
    lists: Lists,
    /// The tables of the edge that was opened.
    inner: Lists,
}

/// A list for each table.
#[derive(Debug)]
struct Lists {
    edges: List,
    tools: List,
    streams: List,
    sessions: List,
}

/// How a table is shown, and where in it one is.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) order: Order,
    /// The row that is selected, which moves with its row.
    selected: Option<String>,
    /// Where it was last.
    pub(super) at: usize,
    /// The first row on the screen, and how many there are, as was last drawn.
    pub(super) first: usize,
    pub(super) room: usize,
}

// === impl State ===

impl State {
    pub(super) fn new(url: &str, tab: Tab) -> Self {
        Self {
            url: url.to_owned(),
            sight: None,
            link: Link::Asking,
            mode: Mode::Normal,
            tab,
            scope: None,
            lists: Lists::new(),
            inner: Lists::new(),
        }
    }

    /// A moment has come.
    pub(super) fn show(&mut self, sight: Sight) {
        self.link = Link::Live;
        self.sight = Some(sight);
    }

    /// None comes any more. What was seen last stays.
    pub(super) fn lose(&mut self, why: String) {
        self.link = Link::Away(why);
    }

    /// How the table is shown.
    pub(super) fn list(&self, tab: Tab) -> &List {
        let lists = if self.scope.is_some() { &self.inner } else { &self.lists };
        lists.of(tab)
    }

    pub(super) fn list_mut(&mut self, tab: Tab) -> &mut List {
        let lists = if self.scope.is_some() { &mut self.inner } else { &mut self.lists };
        lists.of_mut(tab)
    }

    /// The rows of a table, as it is shown. The selected one is where it is among them now.
    pub(super) fn rows(&mut self, tab: Tab) -> Vec<Row> {
        let Some(sight) = &self.sight else { return Vec::new() };
        let order = &self.list(tab).order;
        let rows = rows::rows(sight, tab, self.scope.as_ref(), order);
        self.list_mut(tab).settle(&rows);
        rows
    }

    /// How many rows a table has without its filter.
    pub(super) fn count(&self, tab: Tab) -> usize {
        let Some(sight) = &self.sight else { return 0 };
        let scope = self.scope.as_ref();
        match tab {
            Tab::Edges => sight.edges.len(),
            Tab::Tools => sight
                .tools
                .iter()
                .filter(|tool| scope.is_none_or(|scope| scope.calls(tool)))
                .count(),
            Tab::Streams => {
                let streams = sight.streams.iter();
                streams.filter(|one| scope.is_none_or(|scope| scope.carries(one))).count()
            }
            Tab::Sessions => sight.sessions.len(),
        }
    }

    /// The edge that was opened, as it is now.
    pub(super) fn opened(&self) -> Option<&Edge> {
        let scope = self.scope.as_ref()?;
        self.sight.as_ref()?.edges.iter().find(|edge| scope.is(edge))
    }

    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Flow {
        if key.kind == KeyEventKind::Release {
            return Flow::Stay;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if control && key.code == KeyCode::Char('c') {
            return Flow::Quit;
        }
        match self.mode {
            Mode::Help => {
                let closes = [KeyCode::Esc, KeyCode::Enter, KeyCode::Char('?'), KeyCode::Char('q')];
                if closes.contains(&key.code) {
                    self.mode = Mode::Normal;
                }
            }
            Mode::Filter => self.type_filter(key.code, control),
            Mode::Normal if control => {}
            Mode::Normal => return self.command(key.code),
        }
        Flow::Stay
    }

    fn type_filter(&mut self, code: KeyCode, control: bool) {
        let filter = &mut self.list_mut(self.tab).order.filter;
        match code {
            KeyCode::Char('u') if control => filter.clear(),
            KeyCode::Char(c) if !control => filter.push(c),
            KeyCode::Backspace => {
                filter.pop();
            }
            KeyCode::Enter => self.mode = Mode::Normal,
            KeyCode::Esc => {
                filter.clear();
                self.mode = Mode::Normal;
            }
            KeyCode::Up => self.go(-1),
            KeyCode::Down => self.go(1),
            _ => {}
        }
    }

    fn command(&mut self, code: KeyCode) -> Flow {
        let page = isize::try_from(self.list(self.tab).room).unwrap_or(1).max(1);
        match code {
            KeyCode::Char('q') => return Flow::Quit,
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Tab | KeyCode::BackTab => self.turn(code == KeyCode::Tab),
            KeyCode::Char(digit @ '1'..='4') => {
                self.scope = None;
                self.tab = match digit {
                    '1' => Tab::Edges,
                    '2' => Tab::Tools,
                    '3' => Tab::Streams,
                    _ => Tab::Sessions,
                };
            }
            KeyCode::Left | KeyCode::Char('h') => self.sort_beside(false),
            KeyCode::Right | KeyCode::Char('l') => self.sort_beside(true),
            KeyCode::Char('r') => {
                let order = &mut self.list_mut(self.tab).order;
                order.descending = !order.descending;
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-page),
            KeyCode::PageDown => self.go(page),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            KeyCode::Enter => self.open(),
            KeyCode::Esc => self.back(),
            _ => {}
        }
        Flow::Stay
    }

    /// To the table beside. An edge has two.
    fn turn(&mut self, forward: bool) {
        self.tab = match (self.tab, self.scope.is_some(), forward) {
            (Tab::Tools, true, _) | (Tab::Tools, false, true) => Tab::Streams,
            (_, true, _) | (Tab::Edges, false, true) | (Tab::Streams, false, false) => Tab::Tools,
            (Tab::Streams, false, true) | (Tab::Edges, false, false) => Tab::Sessions,
            (Tab::Sessions, false, true) | (Tab::Tools, false, false) => Tab::Edges,
            (Tab::Sessions, false, false) => Tab::Streams,
        };
    }

    fn sort_beside(&mut self, right: bool) {
        let columns = rows::columns(self.tab);
        let order = &mut self.list_mut(self.tab).order;
        let step = if right { 1 } else { columns.len() - 1 };
        order.by = (order.by + step) % columns.len();
        // Of numbers the great ones are asked for, of names the first ones.
        order.descending = columns.get(order.by).is_some_and(|(_, side)| *side == Side::Right);
    }

    fn go(&mut self, by: isize) {
        let rows = self.rows(self.tab);
        let list = self.list_mut(self.tab);
        list.at = list.at.saturating_add_signed(by).min(rows.len().saturating_sub(1));
        list.selected = rows.get(list.at).map(|row| row.key.clone());
    }

    fn open(&mut self) {
        if self.scope.is_some() || self.tab != Tab::Edges {
            return;
        }
        let at = |state: &Self| state.list(Tab::Edges).at;
        let rows = self.rows(Tab::Edges);
        if let Some(scope) = rows.get(at(self)).and_then(|row| row.scope.clone()) {
            self.scope = Some(scope);
            self.inner = Lists::new();
            self.tab = Tab::Tools;
        }
    }

    /// Out of the filter, then out of the edge.
    fn back(&mut self) {
        let filter = &mut self.list_mut(self.tab).order.filter;
        if !filter.is_empty() {
            filter.clear();
        } else if self.scope.take().is_some() {
            self.tab = Tab::Edges;
        }
    }
}

// === impl Lists ===

impl Lists {
    fn new() -> Self {
        Self {
            edges: List::new(Tab::Edges),
            tools: List::new(Tab::Tools),
            streams: List::new(Tab::Streams),
            sessions: List::new(Tab::Sessions),
        }
    }

    fn of(&self, tab: Tab) -> &List {
        match tab {
            Tab::Edges => &self.edges,
            Tab::Tools => &self.tools,
            Tab::Streams => &self.streams,
            Tab::Sessions => &self.sessions,
        }
    }

    fn of_mut(&mut self, tab: Tab) -> &mut List {
        match tab {
            Tab::Edges => &mut self.edges,
            Tab::Tools => &mut self.tools,
            Tab::Streams => &mut self.streams,
            Tab::Sessions => &mut self.sessions,
        }
    }
}

// === impl List ===

impl List {
    fn new(tab: Tab) -> Self {
        Self { order: Order::of(tab), selected: None, at: 0, first: 0, room: 0 }
    }

    /// Finds the selected row again; where it is gone, the one in its place is selected.
    fn settle(&mut self, rows: &[Row]) {
        let found = rows.iter().position(|row| self.selected.as_ref() == Some(&row.key));
        self.at = found.unwrap_or_else(|| self.at.min(rows.len().saturating_sub(1)));
        if found.is_none() && self.selected.is_some() && !rows.is_empty() {
            self.selected = rows.get(self.at).map(|row| row.key.clone());
        }
    }

    /// There is room for so many rows: the selected one shall be among them.
    pub(super) fn scroll(&mut self, room: usize) {
        self.room = room;
        self.first = self.first.clamp((self.at + 1).saturating_sub(room.max(1)), self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::samples;

    fn state() -> State {
        let mut state = State::new("http://a", Tab::Edges);
        state.show(samples::sight());
        state
    }

    fn press(state: &mut State, keys: &str) {
        for c in keys.chars() {
            let code = match c {
                '\n' => KeyCode::Enter,
                '\t' => KeyCode::Tab,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                '→' => KeyCode::Right,
                '←' => KeyCode::Left,
                '↓' => KeyCode::Down,
                c => KeyCode::Char(c),
            };
            assert_eq!(state.key(code.into()), Flow::Stay, "{keys:?}");
        }
    }

    fn first_cells(state: &mut State) -> Vec<String> {
        let tab = state.tab;
        state.rows(tab).into_iter().map(|mut row| row.cells.remove(0).text).collect()
    }

    #[test]
    fn q_and_control_c_end_it_and_a_filter_may_have_a_q() {
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        let mut state = state();
        press(&mut state, "/qc");
        assert_eq!(state.list(Tab::Edges).order.filter, "qc");
        assert_eq!(state.key(control_c), Flow::Quit);
        press(&mut state, "\u{1b}?");
        assert_eq!(state.mode, Mode::Help);
        assert_eq!(state.key(control_c), Flow::Quit);
        press(&mut state, "q");
        assert_eq!(state.key(KeyCode::Char('q').into()), Flow::Quit);
        let released =
            KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::from(KeyCode::Char('q')) };
        assert_eq!(state.key(released), Flow::Stay);
    }

    #[test]
    fn the_filter_works_as_it_is_typed_and_esc_drops_it() {
        let mut state = state();
        press(&mut state, "/toolx\u{8}");
        assert_eq!(first_cells(&mut state), ["team-a/parent", "unknown"]);
        press(&mut state, "\n");
        assert_eq!((state.mode, first_cells(&mut state).len()), (Mode::Normal, 2));
        press(&mut state, "\u{1b}");
        assert_eq!(first_cells(&mut state).len(), 4);
    }

    #[test]
    fn columns_are_sorted_one_after_the_other_round_and_round() {
        let mut state = state();
        let columns = rows::columns(Tab::Edges).len();
        let before = state.list(Tab::Edges).order.by;
        press(&mut state, "←");
        assert_eq!(state.list(Tab::Edges).order.by, before - 1);
        press(&mut state, &"→".repeat(columns + 1));
        assert_eq!(state.list(Tab::Edges).order.by, before);
        press(&mut state, &"→".repeat(columns - before));
        let order = &state.list(Tab::Edges).order;
        assert_eq!((order.by, order.descending), (0, false), "names begin with the first");
        press(&mut state, "r");
        assert_eq!(first_cells(&mut state)[0], "unknown");
    }

    #[test]
    fn the_selected_edge_stays_selected_when_the_order_changes() {
        let mut state = state();
        press(&mut state, "↓");
        let name = |state: &mut State| {
            let rows = state.rows(Tab::Edges);
            rows[state.list(Tab::Edges).at].key.clone()
        };
        let selected = name(&mut state);
        assert!(selected.contains("helper"), "{selected}");
        let mut sight = samples::sight();
        sight.edges[1].rate = 100.0;
        state.show(sight.clone());
        assert_eq!((name(&mut state), state.list(Tab::Edges).at), (selected, 0));
        sight.edges.remove(1);
        state.show(sight);
        assert!(name(&mut state).contains("tools"), "gone: the one in its place");
        press(&mut state, "G");
        assert_eq!(state.list(Tab::Edges).at, 2);
        press(&mut state, "jg");
        assert_eq!(state.list(Tab::Edges).at, 0);
    }

    #[test]
    fn an_edge_opens_and_closes_and_keeps_the_filter_of_the_list() {
        let mut state = state();
        press(&mut state, "/tools\n\n");
        assert_eq!(state.opened().map(|edge| &*edge.from), Some("team-a/parent"));
        assert_eq!(first_cells(&mut state), ["add", "\\u{1b}[2Jevil", "-"]);
        assert_eq!((state.count(Tab::Tools), state.count(Tab::Streams)), (3, 1));
        press(&mut state, "\t");
        assert_eq!(first_cells(&mut state), ["tools.team-a"]);
        press(&mut state, "\t/x\n\u{1b}");
        assert!(state.scope.is_some(), "first out of the filter");
        press(&mut state, "\u{1b}");
        assert_eq!((state.scope.clone(), state.tab), (None, Tab::Edges));
        assert_eq!(state.list(Tab::Edges).order.filter, "tools");
    }

    #[test]
    fn tabs_follow_each_other_and_have_digits() {
        let mut state = state();
        let mut seen = Vec::new();
        for _ in 0..4 {
            press(&mut state, "\t");
            seen.push(state.tab);
        }
        assert_eq!(seen, [Tab::Tools, Tab::Streams, Tab::Sessions, Tab::Edges]);
        for expected in [Tab::Sessions, Tab::Streams, Tab::Tools, Tab::Edges] {
            let _stays = state.key(KeyCode::BackTab.into());
            assert_eq!(state.tab, expected);
        }
        press(&mut state, "\n4");
        assert_eq!((state.tab, &state.scope), (Tab::Sessions, &None));
        press(&mut state, "\n");
        assert_eq!(state.tab, Tab::Sessions, "nothing to open");
    }

    #[test]
    fn the_selected_row_is_always_on_the_screen() {
        let mut list = List::new(Tab::Edges);
        for (at, room, first) in [(0, 3, 0), (2, 3, 0), (3, 3, 1), (9, 3, 7), (8, 3, 7), (6, 3, 6)]
        {
            list.at = at;
            list.scroll(room);
            assert_eq!(list.first, first, "{at}");
        }
        list.at = 8;
        list.scroll(0);
        assert_eq!(list.first, 8, "without room nothing breaks");
    }

    #[test]
    fn what_was_seen_last_stays_when_the_api_goes_away() {
        let mut state = state();
        state.lose("gone".to_owned());
        assert_eq!(first_cells(&mut state).len(), 4);
        assert_eq!(state.link, Link::Away("gone".to_owned()));
        state.show(samples::sight());
        assert_eq!(state.link, Link::Live);
    }
}
