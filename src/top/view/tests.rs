//! Screens as text.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;

use super::*;
use crate::top::samples;
use crate::top::state::Flow;

/// What stands on a screen of this size, and the style of a text on it.
struct Shown(ratatui::buffer::Buffer);

impl Shown {
    fn of(state: &mut State, width: u16, height: u16) -> Self {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        Self(terminal.backend().buffer().clone())
    }

    fn lines(&self) -> Vec<String> {
        let area = self.0.area;
        let line = |y| {
            let cells = (0..area.width).map(|x| self.0[(x, y)].symbol());
            cells.collect::<String>().trim_end().to_owned()
        };
        (0..area.height).map(line).collect()
    }

    fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// The style where a line begins with this.
    fn style(&self, begins: &str) -> Style {
        let at = self.lines().iter().position(|line| line.starts_with(begins));
        let at = at.unwrap_or_else(|| panic!("no {begins:?} in\n{}", self.text()));
        self.0[(0, u16::try_from(at).unwrap())].style()
    }
}

fn state() -> State {
    let mut state = State::new("http://127.0.0.1:9091", Tab::Edges);
    state.show(samples::sight());
    state
}

fn press(state: &mut State, keys: impl IntoIterator<Item = KeyCode>) {
    for key in keys {
        assert_eq!(state.key(key.into()), Flow::Stay);
    }
}

fn typed(state: &mut State, text: &str) {
    press(state, text.chars().map(KeyCode::Char));
}

#[test]
fn the_edges_are_shown_with_the_busiest_first() {
    let shown = Shown::of(&mut state(), 110, 12).text();
    let expected = "\
kagent-proxy top  http://127.0.0.1:9091  live  18:00:00 UTC, rates of 60 s
calls 1234  errors 4  rate 2.50/s  errors 0.10/s  open requests 4  open streams 3  routes 10  refused 2
 1 edges 4  2 tools 4  3 streams 2  4 sessions 2
FROM           TO             PROTOCOL  STATE       CALLS  ERRORS  RATE▼  ERR/S    P50   P99  STREAMS
team-a/parent  tools.team-a   mcp       ok           1200       1   2.00   0.10  3.1ms  20ms        1
team-a/parent  helper.team-a  a2a       slow           30       3   0.50      0   6.2s  9.0s        2
unknown        tools.team-a   mcp       undeclared      4       0   0.02      0   40ms  41ms        0
team-a/parent  idle.team-b    mcp       unused          0       0      0      0      -     -        0



Enter open  Tab next  / filter  ←→ sort  r reverse  ? help  q quit";
    assert_eq!(shown, expected);
}

#[test]
fn states_stand_out_and_the_selected_row_is_reversed() {
    let mut state = state();
    press(&mut state, [KeyCode::End]);
    let shown = Shown::of(&mut state, 110, 12);
    assert_eq!(shown.style("team-a/parent  helper").fg, Some(Color::Yellow));
    assert_eq!(shown.style("unknown").fg, Some(Color::Magenta));
    let selected = shown.style("team-a/parent  idle");
    assert!(selected.add_modifier.contains(Modifier::REVERSED | Modifier::DIM), "{selected:?}");
    assert!(!shown.style("unknown").add_modifier.contains(Modifier::REVERSED));
}

#[test]
fn an_edge_shows_its_tools_and_streams() {
    let mut state = state();
    press(&mut state, [KeyCode::Enter]);
    let shown = Shown::of(&mut state, 110, 15).text();
    let expected = "\
kagent-proxy top  http://127.0.0.1:9091  live  18:00:00 UTC, rates of 60 s
calls 1234  errors 4  rate 2.50/s  errors 0.10/s  open requests 4  open streams 3  routes 10  refused 2
 1 edges  2 tools  3 streams  4 sessions
team-a/parent → tools.team-a (mcp)
state ok  calls 1200  errors 1  rate 2.00  err/s 0.10  p50 3.1ms  p99 20ms  streams 1
 tools 3
TOOL           METHOD      ROUTE         CALLER         DECLARED  CALLS  ERRORS  RATE▼  ERR/S    P50    P99
add            tools/call  tools.team-a  team-a/parent  yes         900       0   1.40      0  2.0ms  9.0ms
\\u{1b}[2Jevil  tools/call  tools.team-a  team-a/parent  no            9       9   0.40   0.40  2.0ms  9.0ms
-              tools/list  tools.team-a  team-a/parent  -           291       1   0.20      0  2.0ms  9.0ms

 streams 1
ROUTE         CALLER         PATH  SESSION   AGE▼
tools.team-a  team-a/parent  /mcp  00000a1b   12s
Esc back  Tab tools or streams  / filter  ←→ sort  r reverse  ? help  q quit";
    assert_eq!(shown, expected);
    press(&mut state, [KeyCode::Esc]);
    assert!(Shown::of(&mut state, 110, 15).text().contains("idle.team-b"));
}

#[test]
fn the_filter_is_shown_while_it_is_typed_and_what_it_leaves() {
    let mut state = state();
    typed(&mut state, "/help");
    let shown = Shown::of(&mut state, 110, 12);
    assert!(
        shown.text().contains("/help▏  Enter keeps the filter, Esc drops it"),
        "{}",
        shown.text()
    );
    assert!(!shown.text().contains("idle.team-b"));
    typed(&mut state, "x");
    assert!(Shown::of(&mut state, 110, 12).text().contains("nothing has \"helpx\" in a name"));
}

#[test]
fn an_api_that_is_away_is_said_so_above_what_was_seen_last() {
    let mut state = State::new("http://127.0.0.1:9091", Tab::Edges);
    let shown = Shown::of(&mut state, 80, 8).text();
    assert!(shown.contains("asking") && shown.contains("nothing has been heard yet"), "{shown}");
    state.lose("http://127.0.0.1:9091 does not answer: Connection refused".to_owned());
    let shown = Shown::of(&mut state, 80, 8).text();
    assert!(
        shown.contains("away") && shown.contains("Connection refused; asking again"),
        "{shown}"
    );
    state.show(samples::sight());
    state.lose("gone".to_owned());
    let shown = Shown::of(&mut state, 110, 12);
    assert!(shown.text().contains("gone; asking again. Below is what was seen at 18:00:00 UTC"));
    assert_eq!(shown.style("gone").fg, Some(Color::Red));
    assert!(shown.text().contains("idle.team-b"), "{}", shown.text());
}

#[test]
fn more_than_is_sent_is_said_so() {
    let mut sight = samples::sight();
    sight.truncated = true;
    let mut state = state();
    state.show(sight);
    assert!(Shown::of(&mut state, 110, 12).text().contains("There is more than the proxy sends"));
}

#[test]
fn narrow_screens_cut_names_and_short_ones_scroll() {
    let mut state = state();
    let shown = Shown::of(&mut state, 80, 12).text();
    let titles = shown.lines().find(|line| line.starts_with("FROM")).unwrap();
    assert_eq!(
        titles,
        "FROM           TO             STATE       RATE▼  ERR/S    P50   P99  STREAMS"
    );
    assert!(shown.contains("team-a/parent") && shown.contains("3.1ms"), "{shown}");
    assert!(shown.contains("refused 2") && shown.contains("rates of 60 s"), "{shown}");
    let shown = Shown::of(&mut state, 58, 12).text();
    assert!(shown.contains("team-a/pare…") && shown.contains("RATE▼    P50"), "{shown}");
    press(&mut state, [KeyCode::End]);
    let shown = Shown::of(&mut state, 110, 7).text();
    assert!(shown.contains("idle.team-b") && !shown.contains("helper.team-a"), "{shown}");
    for (width, height) in [(0, 0), (1, 1), (10, 3), (20, 5), (300, 2)] {
        for keys in [&[][..], &[KeyCode::Enter], &[KeyCode::Char('?')]] {
            press(&mut state, keys.iter().copied());
            let _nothing_breaks = Shown::of(&mut state, width, height);
        }
        press(&mut state, [KeyCode::Esc, KeyCode::Esc]);
    }
}

#[test]
fn help_names_every_key_and_closes() {
    let mut state = state();
    typed(&mut state, "?");
    let shown = Shown::of(&mut state, 80, 24).text();
    for word in
        ["Enter", "Esc", "Left, Right", "q, Ctrl-C", "filter by names", "declared, never called"]
    {
        assert!(shown.contains(word), "{word}\n{shown}");
    }
    press(&mut state, [KeyCode::Esc]);
    assert!(!Shown::of(&mut state, 80, 24).text().contains("Ctrl-C"));
}

#[test]
fn every_table_has_words_for_being_empty() {
    let mut sight = samples::sight();
    (sight.edges, sight.tools, sight.streams, sight.sessions) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut state = state();
    state.show(sight);
    for (digit, said) in [
        ('1', "nobody declares any"),
        ('2', "no calls yet"),
        ('3', "no stream is open"),
        ('4', "no sessions yet"),
    ] {
        press(&mut state, [KeyCode::Char(digit), KeyCode::Enter]);
        let shown = Shown::of(&mut state, 90, 10).text();
        assert!(shown.contains(said), "{said}\n{shown}");
    }
}
