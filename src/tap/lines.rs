//! The events of `GET /calls` as lines of text or of JSON.
//!
//! Prints nothing. Columns grow with what has passed, up to a bound, and never shrink: the longer it runs, the less
//! moves.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::Output;
use crate::columns::{self, Side, harmless};

/// The title of a column, and its width at first.
const COLUMNS: [(&str, usize, Side); 9] = [
    ("TIME (UTC)", 12, Side::Left),
    ("CALLER", 16, Side::Left),
    ("ROUTE", 16, Side::Left),
    ("PROTOCOL", 8, Side::Left),
    ("METHOD", 12, Side::Left),
    ("TOOL", 12, Side::Left),
    ("STATUS", 6, Side::Right),
    ("ERROR", 10, Side::Left),
    ("TOOK", 8, Side::Right),
];
/// A longer cell makes only its own line longer.
const WIDEST: usize = 40;

/// A call that has ended.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Call {
    at: String,
    route: String,
    caller: String,
    protocol: String,
    method: String,
    tool: String,
    error: String,
    status: u16,
    duration_ms: f64,
}

/// Calls that the proxy did not send, because this reader was too slow.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Missed {
    missed: u64,
}

/// What an event is.
#[derive(Debug, PartialEq)]
pub(super) struct Told {
    /// What is printed for it; nothing for an event that is not known.
    pub(super) line: String,
    /// Whether it is a call.
    pub(super) is_call: bool,
}

/// What has been printed decides how wide columns are.
#[derive(Debug)]
pub(super) struct Lines {
    output: Output,
    widths: [usize; COLUMNS.len()],
}

// === impl Lines ===

impl Lines {
    pub(super) fn new(output: Output) -> Self {
        Self { output, widths: COLUMNS.map(|(title, width, _)| width.max(title.len())) }
    }

    /// The titles, where people read.
    pub(super) fn titles(&self) -> Option<String> {
        let cells = || {
            COLUMNS.iter().zip(self.widths).map(|((title, _, side), width)| (*title, width, *side))
        };
        (self.output == Output::Text).then(|| columns::line(cells()))
    }

    /// The line of an event.
    ///
    /// # Errors
    /// It is no JSON, or not as this version knows it.
    pub(super) fn event(&mut self, json: &str) -> Result<Told, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        let value: Value = serde_json::from_str(json).map_err(wrong)?;
        if let Ok(Missed { missed }) = Missed::deserialize(&value) {
            let text =
                format!("# {missed} calls are missing here: they came faster than they were read");
            return Ok(Told { line: self.either(text, &value), is_call: false });
        }
        if value.get("method").is_none() {
            // Of a later version.
            return Ok(Told { line: self.either(String::new(), &value), is_call: false });
        }
        let line = match self.output {
            Output::Json => value.to_string(),
            Output::Text => self.call(&Call::deserialize(&value).map_err(wrong)?),
        };
        Ok(Told { line, is_call: true })
    }

    fn either(&self, text: String, value: &Value) -> String {
        if self.output == Output::Json { value.to_string() } else { text }
    }

    fn call(&mut self, call: &Call) -> String {
        let or_none =
            |text: &str| if text.is_empty() { "-".to_owned() } else { harmless(text).into_owned() };
        let time =
            call.at.split_once('T').map_or(&*call.at, |(_, time)| time.trim_end_matches('Z'));
        let cells = [
            harmless(time).into_owned(),
            or_none(&call.caller),
            or_none(&call.route),
            or_none(&call.protocol),
            or_none(&call.method),
            or_none(&call.tool),
            call.status.to_string(),
            or_none(&call.error),
            format!("{:.1}ms", call.duration_ms),
        ];
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = columns::width(cell).min(WIDEST).max(*width);
        }
        let sides = COLUMNS.iter().map(|(_, _, side)| *side);
        let cells = cells.iter().zip(self.widths).zip(sides);
        columns::line(cells.map(|((cell, width), side)| (&**cell, width, side)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"at":"2026-11-27T18:00:00.123Z","route":"tools.team-a","caller":"team-a/parent",
        "protocol":"mcp","method":"tools/call","tool":"add","error":"","status":200,"durationMs":1.234,
        "peer":"10.0.0.7:4711","session":"00000a1b","path":"/mcp"}"#;

    fn with(key: &str, value: Value) -> String {
        let mut call: Value = serde_json::from_str(CALL).unwrap();
        call[key] = value;
        call.to_string()
    }

    #[test]
    fn calls_stand_below_each_other_and_columns_grow() {
        let mut lines = Lines::new(Output::Text);
        let all = [
            lines.titles().unwrap(),
            lines.event(CALL).unwrap().line,
            lines.event(&with("tool", "a_tool_with_a_long_name".into())).unwrap().line,
            lines.event(&with("error", "tool_error".into())).unwrap().line,
        ];
        let expected = "\
TIME (UTC)    CALLER            ROUTE             PROTOCOL  METHOD        TOOL          STATUS  ERROR           TOOK
18:00:00.123  team-a/parent     tools.team-a      mcp       tools/call    add              200  -              1.2ms
18:00:00.123  team-a/parent     tools.team-a      mcp       tools/call    a_tool_with_a_long_name     200  -              1.2ms
18:00:00.123  team-a/parent     tools.team-a      mcp       tools/call    add                         200  tool_error     1.2ms";
        assert_eq!(all.join("\n"), expected);
        let name = "x".repeat(128);
        lines.event(&with("tool", name.into())).unwrap();
        assert_eq!(lines.widths[5], WIDEST);
    }

    #[test]
    fn what_a_client_sent_cannot_act_on_the_terminal() {
        let call = with("tool", "\u{1b}]0;evil\u{7}\n".into());
        let text = Lines::new(Output::Text).event(&call).unwrap().line;
        assert!(text.contains("\\u{1b}]0;evil\\u{7}\\u{a}"), "{text}");
        let json = Lines::new(Output::Json).event(&call).unwrap().line;
        assert!(!json.contains(char::is_control), "{json}");
    }

    #[test]
    fn json_is_one_line_with_everything_that_was_sent() {
        let mut lines = Lines::new(Output::Json);
        assert_eq!(lines.titles(), None);
        let told = lines.event(CALL).unwrap();
        assert!(told.is_call && !told.line.contains('\n'), "{told:?}");
        let same = serde_json::from_str::<Value>(CALL).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&told.line).unwrap(), same);
        let told = lines.event("{\"missed\": 7}").unwrap();
        assert_eq!(told, Told { line: "{\"missed\":7}".to_owned(), is_call: false });
    }

    #[test]
    fn what_is_missing_is_said_and_what_is_unknown_is_passed_over() {
        let mut lines = Lines::new(Output::Text);
        let missed = lines.event("{\"missed\": 7}").unwrap();
        assert!(missed.line.starts_with("# 7 calls are missing here") && !missed.is_call);
        let later = lines.event("{\"of\": \"a later version\"}").unwrap();
        assert_eq!(later, Told { line: String::new(), is_call: false });
        for wrong in ["", "{", "{\"method\": \"tools/call\"}"] {
            assert!(lines.event(wrong).is_err(), "{wrong}");
        }
    }
}
