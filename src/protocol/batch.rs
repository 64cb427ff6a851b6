//! Follows an event stream that answers a JSON-RPC batch (MCP 2025-03-26, "Streamable HTTP"): which requests of the
//! batch have been answered.
//!
//! Keeps no more than the event that is being read, and of a long one only its start. Knows no batch and no answer of
//! ours.

use super::event_data::EventData;
use super::jsonrpc::messages;

/// Bytes of an event that are kept; whether a longer one is an answer, and to what, may not be seen.
const MAX_EVENT: usize = 64 * 1024;

/// What has been seen of one stream.
#[derive(Debug, Default)]
pub struct BatchScanner {
    lines: EventData,
    data: Vec<u8>,
    /// The event is longer than what is kept.
    cut: bool,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'e> {
    /// The answer to the request with this id, as it stands there.
    Answer(&'e str),
    /// It may be an answer to any.
    Unclear,
}

// === impl BatchScanner ===

impl BatchScanner {
    /// Takes the next bytes, and shows the answers in events that they complete.
    pub fn feed(&mut self, bytes: &[u8], mut seen: impl FnMut(Seen<'_>)) {
        let Self { lines, data, cut } = self;
        lines.feed(bytes, |part| match part {
            Some(part) => {
                let room = MAX_EVENT - data.len();
                *cut |= part.len() > room;
                data.extend_from_slice(part.get(..room).unwrap_or(part));
            }
            None => {
                for message in messages(data) {
                    match (message.id, message.method) {
                        (Some(id), None) => seen(Seen::Answer(id)),
                        (None, None) if *cut => seen(Seen::Unclear),
                        _ => {}
                    }
                }
                *data = Vec::new();
                *cut = false;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pieces: &[&str]) -> Vec<Option<String>> {
        let (mut scanner, mut all) = (BatchScanner::default(), Vec::new());
        for piece in pieces {
            scanner.feed(piece.as_bytes(), |seen| {
                all.push(match seen {
                    Seen::Answer(id) => Some(id.to_owned()),
                    Seen::Unclear => None,
                });
            });
        }
        all
    }

    #[test]
    fn answers_are_found_at_every_split_alone_and_together() {
        let stream = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"id\":9}}\n\n: id\n\n\
            data: {\"method\":\"ping\",\"id\":2}\r\n\r\ndata: {\"method\":\"note\"}\n\n\
            data: [{\"result\":{},\"id\":\"b\"},\ndata: {\"error\":{},\"id\":3}]\n\ndata: {\"id\":4,\"result\":{}}\n";
        let found = [Some("1"), Some("\"b\""), Some("3")].map(|id| id.map(str::to_owned));
        for at in 0..=stream.len() {
            assert_eq!(seen(&[&stream[..at], &stream[at..]]), found, "split at {at}");
        }
    }

    #[test]
    fn of_an_event_that_is_too_long_only_the_start_says_what_it_is() {
        let long = "x".repeat(MAX_EVENT);
        let first = format!("data: {{\"id\":1,\"result\":\"{long}\"}}\n\n");
        let last = format!("data: {{\"result\":\"{long}\",\"id\":1}}\n\n");
        let note = format!("data: {{\"method\":\"note\",\"params\":\"{long}\"}}\n\n");
        let answered = "data: {\"id\":2,\"result\":{}}\n\n";
        let (one, two) = (Some("1".to_owned()), Some("2".to_owned()));
        assert_eq!(seen(&[&first, answered]), [one, two.clone()]);
        assert_eq!(seen(&[&last, answered]), [None, two.clone()]);
        assert_eq!(seen(&[&note, answered]), [two]);
    }
}
