//! `kagent-proxy tap`: a line for each call that ends, as it ends.
//!
//! `tap/lines.rs` makes the lines; here they are waited for and written. A reader that is slow makes us wait, and the
//! proxy then counts what it does not send; it never waits itself.

use std::io::Write;
use std::time::Duration;

use form_urlencoded::Serializer;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use crate::admin_client::{AdminClient, News, follow};
use crate::cli::TapArgs;
use lines::Lines;

mod lines;

/// Of a stream that sends a comment every 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);

/// Writes the calls to `out`, and to `notes` what happens to the connection, until so many have passed or nobody
/// reads `out` any more.
///
/// # Errors
/// The admin listener does not answer, or not this.
pub async fn tap(
    args: &TapArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<(), String> {
    let client = AdminClient::new(&args.admin).map_err(|failure| failure.to_string())?;
    let (sender, mut news) = mpsc::channel(256);
    let following = tokio::spawn(follow(client, path(args), SILENCE, sender));
    let mut written =
        Written { lines: Lines::new(args.output), calls: 0, begun: false, is_away: false };
    let result = loop {
        // What has come is written together, then shown before it is waited again.
        let heard = match news.try_recv() {
            Ok(heard) => heard,
            Err(TryRecvError::Empty) => {
                if out.flush().is_err() {
                    break Ok(());
                }
                match news.recv().await {
                    Some(heard) => heard,
                    None => break Ok(()),
                }
            }
            Err(TryRecvError::Disconnected) => break Ok(()),
        };
        match written.hear(args, heard, out, notes) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(why) => break Err(why),
        }
    };
    following.abort();
    let _nobody_may_read = out.flush();
    result
}

/// Where to listen, with the filters.
fn path(args: &TapArgs) -> String {
    let mut query = Serializer::new(String::new());
    let filters = [
        ("caller", &args.caller),
        ("route", &args.route),
        ("method", &args.method),
        ("tool", &args.tool),
        ("protocol", &args.protocol),
        ("error", &args.error),
    ];
    for (name, value) in filters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { "/calls".to_owned() } else { format!("/calls?{query}") }
}

/// What has been written so far.
#[derive(Debug)]
struct Written {
    lines: Lines,
    calls: u64,
    /// The stream has begun at least once.
    begun: bool,
    /// It has been said that nobody answers.
    is_away: bool,
}

// === impl Written ===

impl Written {
    /// Writes what there is to write of the news; whether to go on.
    fn hear(
        &mut self,
        args: &TapArgs,
        heard: News,
        out: &mut impl Write,
        notes: &mut impl Write,
    ) -> Result<bool, String> {
        let mut note = |text: String| {
            let _nobody_may_read = writeln!(notes, "tap: {text}");
        };
        match heard {
            News::Begun if !self.begun => {
                self.begun = true;
                let titles = self.lines.titles();
                Ok(titles.is_none_or(|titles| writeln!(out, "{titles}").is_ok()))
            }
            News::Begun => {
                self.is_away = false;
                note(format!("connected to {} again; calls in between are not shown", args.admin));
                Ok(true)
            }
            News::Event(json) => {
                let told = self.lines.event(&json).map_err(|error| {
                    format!("{} sends calls as another version does: {error}", args.admin)
                })?;
                self.calls += u64::from(told.is_call);
                let shown = told.line.is_empty() || writeln!(out, "{}", told.line).is_ok();
                Ok(shown && args.max.is_none_or(|max| self.calls < max))
            }
            News::Failed(failure) if !self.begun || failure.is_final() => Err(failure.to_string()),
            News::Failed(failure) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    note(format!("{failure}; asking again"));
                }
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::admin_client::Failure;
    use crate::cli::{Cli, Command};

    fn args(flags: &[&str]) -> TapArgs {
        let cli = Cli::try_parse_from(["kagent-proxy", "tap"].iter().chain(flags)).unwrap();
        let Some(Command::Tap(args)) = cli.command else { panic!("not tap") };
        args
    }

    #[test]
    fn filters_become_the_query() {
        assert_eq!(path(&args(&[])), "/calls");
        let filtered = args(&["--caller", "team-a/parent", "--error", "any", "--tool", "a b&c"]);
        assert_eq!(path(&filtered), "/calls?caller=team-a%2Fparent&tool=a+b%26c&error=any");
        let others = args(&["--route", "r", "--method", "m", "--protocol", "mcp"]);
        assert_eq!(path(&others), "/calls?route=r&method=m&protocol=mcp");
    }

    #[test]
    fn an_outage_is_told_once_and_the_first_one_is_the_last() {
        let args = args(&["--output", "json"]);
        let fresh =
            || Written { lines: Lines::new(args.output), calls: 0, begun: false, is_away: false };
        let away = || News::Failed(Failure::Away("nobody".to_owned()));
        let (mut out, mut notes) = (Vec::new(), Vec::new());
        let mut written = fresh();
        for heard in [News::Begun, away(), away(), News::Begun] {
            assert_eq!(written.hear(&args, heard, &mut out, &mut notes), Ok(true));
        }
        let said = String::from_utf8(notes.clone()).unwrap();
        assert_eq!(said.matches("nobody; asking again").count(), 1, "{said}");
        assert!(said.contains("calls in between are not shown"), "{said}");
        let first = fresh().hear(&args, away(), &mut out, &mut notes);
        assert_eq!(first, Err("nobody".to_owned()));
    }
}
