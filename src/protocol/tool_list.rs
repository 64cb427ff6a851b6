//! Reads which tools a server lists (MCP 2025-11-25, "Tools"; the names in the result of `tools/list`), from a response
//! in JSON or from an event stream of them.
//!
//! Pure: bytes in, names out, at any split. Schemas and descriptions pass unread, whatever they hold.

use std::sync::LazyLock;

use super::event_data::{Messages, Signs};
use super::places::{Found, Places};

/// Reads a response's body.
#[derive(Debug)]
pub struct ToolListScanner(Messages<Place>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Response,
    Result,
    Tools,
    Tool,
    Name,
}

// === impl ToolListScanner ===

impl ToolListScanner {
    /// Nothing has come yet of a response, or of a stream of `events` that are responses.
    #[must_use]
    pub fn new(events: bool) -> Self {
        Self(Messages::new(Places::batched(Place::Response, place).with_items(items), events))
    }

    /// Takes the next bytes, and shows the names that they complete.
    pub fn feed(&mut self, bytes: &[u8], show: &mut impl FnMut(&str)) {
        static SIGNS: LazyLock<Signs> = LazyLock::new(|| Signs::of_keys(&["tools"]));
        if self.0.are_without(&SIGNS, bytes) {
            return;
        }
        self.0.feed(bytes, &mut |place, found| {
            if let (Place::Name, Found::Text(name)) = (place, found) {
                show(&name);
            }
        });
    }
}

fn place(around: Place, key: &[u8]) -> Option<Place> {
    Some(match (around, key) {
        (Place::Response, b"result") => Place::Result,
        (Place::Result, b"tools") => Place::Tools,
        (Place::Tool, b"name") => Place::Name,
        _ => return None,
    })
}

fn items(of: Place) -> Option<Place> {
    (of == Place::Tools).then_some(Place::Tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(events: bool, pieces: &[&[u8]]) -> Vec<String> {
        let (mut scanner, mut all) = (ToolListScanner::new(events), Vec::new());
        for piece in pieces {
            scanner.feed(piece, &mut |name| all.push(name.to_owned()));
        }
        all
    }

    #[test]
    fn names_are_read_at_every_split_in_json_and_in_events() {
        for (message, expected) in [
            (
                r#"{"id":1,"result":{"tools":[{"name":"a","inputSchema":{"name":"x","properties":{"name":{}}}},{"description":"\"name\":\"y\"","annotations":{"name":"z"},"name":"b\u0063"}],"nextCursor":"name"}}"#,
                &["a", "bc"][..],
            ),
            (r#"{"result":{"tools":[]}}"#, &[]),
            (r#"{"result":{"tools":[["x",{"name":"y"}],"name","z",7,{"name":"a"}]}}"#, &["a"]),
            (r#"{"result":{"tools":{"name":"x"}}}"#, &[]),
            (r#"{"result":{"tools":{"[]":{"name":"x"}}}}"#, &[]),
            (r#"{"result":{"prompts":[{"name":"x"}]}}"#, &[]),
            (
                r#"[{"result":{"tools":[{"name":"a"}]}},{"result":{"tools":[{"name":"b"}]}}]"#,
                &["a", "b"],
            ),
            (r#"{"result":{"tools":[{"name":"a"}"#, &["a"]),
            (r#"{"tools":[{"name":"x"}]}"#, &[]),
        ] {
            let event = format!("data: {message}\n\n");
            for (events, text) in [(false, message), (true, &event)] {
                let bytes = text.as_bytes();
                for at in 0..=bytes.len() {
                    let found = read(events, &[&bytes[..at], &bytes[at..]]);
                    assert_eq!(found, expected, "{text} split at {at}");
                }
            }
        }
    }
}
