//! `kagent-proxy top`: who calls whom, live on a screen or once as plain text.
//!
//! `state.rs` is what is shown and what keys do, `view.rs` the drawing, `rows.rs` the tables, `sight.rs` what the admin
//! API sends, `screen.rs` the terminal. Here they meet the network and the clock.

use std::io;
use std::time::Duration;

use ratatui::crossterm::event::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin_client::{AdminClient, Failure, News, follow};
use crate::cli::{Tab, TopArgs};
use crate::columns;
use rows::Order;
use sight::Sight;
use state::{Flow, State};

mod rows;
#[cfg(test)]
mod samples;
mod screen;
mod sight;
mod state;
mod view;

pub use screen::Screen;

/// Of an admin API that sends a moment each second.
const SILENCE: Duration = Duration::from_secs(10);
/// The screen is drawn at least so often: a terminal that has gone is noticed by it.
const TICK: Duration = Duration::from_secs(1);
const SIGHT: &str = "/sight";

/// One moment as plain text: the totals, and the table that is asked for.
///
/// # Errors
/// The admin listener does not answer, or not this.
pub async fn once(args: &TopArgs) -> Result<String, Failure> {
    let sight: Sight = AdminClient::new(&args.admin)?.json(SIGHT).await?;
    Ok(plain(&sight, args.show))
}

fn plain(sight: &Sight, tab: Tab) -> String {
    let rows = rows::rows(sight, tab, None, &Order::of(tab));
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.cells.into_iter().map(|cell| cell.text).collect()).collect();
    let table = columns::table(rows::columns(tab), &rows);
    let more = if sight.truncated { "and more, which the proxy does not send\n" } else { "" };
    format!("{}\n\n{table}{more}", view::totals_line(&sight.totals))
}

/// Live on the terminal, until a key or a signal ends it.
///
/// # Errors
/// The admin listener refuses from the start, or the terminal has gone.
pub async fn live(args: &TopArgs) -> Result<(), String> {
    let client = AdminClient::new(&args.admin).map_err(|failure| failure.to_string())?;
    let mut state = State::new(client.url(), args.show);
    let broken = |error: io::Error| format!("cannot use this terminal: {error}; try --once");
    let mut ends = Ends::new().map_err(broken)?;
    let mut screen = Screen::open().map_err(broken)?;
    let mut events = screen.events().map_err(broken)?;
    let (sender, mut news) = mpsc::channel(4);
    let following = follow(client, SIGHT.to_owned(), SILENCE, sender);
    let mut following = std::pin::pin!(following);
    let mut tick = tokio::time::interval(TICK);
    loop {
        screen.draw(|frame| view::draw(frame, &mut state)).map_err(broken)?;
        let flow = tokio::select! {
            () = following.as_mut() => Flow::Quit,
            Some(heard) = news.recv() => hear(&mut state, heard)?,
            event = events.recv() => match event {
                Some(Event::Key(key)) => state.key(key),
                Some(_) => Flow::Stay,
                None => Flow::Quit,
            },
            () = ends.one() => Flow::Quit,
            _ = tick.tick() => Flow::Stay,
        };
        if flow == Flow::Quit {
            return Ok(());
        }
    }
}

/// What the admin API sent, or why it does not.
fn hear(state: &mut State, heard: News) -> Result<Flow, String> {
    match heard {
        News::Begun => {}
        News::Event(json) => match serde_json::from_str(&json) {
            Ok(sight) => state.show(sight),
            Err(error) => {
                let what = format!("{} sends {SIGHT} as another version does: {error}", state.url);
                return refuse(state, what);
            }
        },
        News::Failed(failure) if failure.is_final() => return refuse(state, failure.to_string()),
        News::Failed(failure) => state.lose(failure.to_string()),
    }
    Ok(Flow::Stay)
}

/// Nothing can be expected where nothing was ever seen; else the proxy may be in the middle of an update.
fn refuse(state: &mut State, why: String) -> Result<Flow, String> {
    if state.sight.is_none() {
        return Err(why);
    }
    state.lose(why);
    Ok(Flow::Stay)
}

/// The signals that end it: the terminal must be given back.
struct Ends([Signal; 3]);

// === impl Ends ===

impl Ends {
    fn new() -> io::Result<Self> {
        let [hangup, interrupt, terminate] =
            [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Self([hangup?, interrupt?, terminate?]))
    }

    async fn one(&mut self) {
        let Self([hangup, interrupt, terminate]) = self;
        tokio::select! {
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_has_the_totals_and_one_table_without_anything_that_acts_on_a_terminal() {
        let text = plain(&samples::sight(), Tab::Edges);
        let expected = "\
calls 1234  errors 4  rate 2.50/s  errors 0.10/s  open requests 4  open streams 3  routes 10  refused 2

FROM           TO             PROTOCOL  STATE       CALLS  ERRORS  RATE  ERR/S    P50   P99  STREAMS
team-a/parent  tools.team-a   mcp       ok           1200       1  2.00   0.10  3.1ms  20ms        1
team-a/parent  helper.team-a  a2a       slow           30       3  0.50      0   6.2s  9.0s        2
unknown        tools.team-a   mcp       undeclared      4       0  0.02      0   40ms  41ms        0
team-a/parent  idle.team-b    mcp       unused          0       0     0      0      -     -        0
";
        assert_eq!(text, expected);
        let tools = plain(&samples::sight(), Tab::Tools);
        assert!(!tools.contains('\u{1b}') && tools.contains("\\u{1b}[2Jevil"), "{tools}");
        let mut cut = samples::sight();
        cut.truncated = true;
        assert!(plain(&cut, Tab::Streams).ends_with("and more, which the proxy does not send\n"));
    }

    #[test]
    fn a_refusal_ends_it_only_where_nothing_was_ever_seen() {
        let refused = || {
            News::Failed(Failure::Refused {
                status: http::StatusCode::NOT_FOUND,
                text: "no /sight".to_owned(),
            })
        };
        let mut state = State::new("http://a", Tab::Edges);
        assert_eq!(hear(&mut state, refused()), Err("no /sight".to_owned()));
        let odd = hear(&mut state, News::Event("{\"at\": 1}".to_owned()));
        assert!(odd.is_err_and(|why| why.contains("another version")));
        let away = News::Failed(Failure::Away("nobody".to_owned()));
        assert_eq!(hear(&mut state, away), Ok(Flow::Stay));
        state.show(samples::sight());
        assert_eq!(hear(&mut state, refused()), Ok(Flow::Stay));
        assert_eq!(state.link, state::Link::Away("no /sight".to_owned()));
    }
}
