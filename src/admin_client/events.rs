//! The events of one stream, each as its data.
//!
//! The connection is driven beside it and ends with it. The name of an event is not looked at: its data says what it
//! is.

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::task::AbortOnDropHandle;

use super::{AdminClient, Failure, MAX_ANSWER};
use crate::protocol::event_data::EventData;

/// A stream of events that has begun.
#[derive(Debug)]
pub struct Events {
    client: AdminClient,
    silence: Duration,
    body: Incoming,
    gathered: Gathered,
    _connection: AbortOnDropHandle<()>,
}

/// What of a stream has come: whole events, and the beginning of one.
#[derive(Debug, Default)]
struct Gathered {
    lines: EventData,
    begun: Vec<u8>,
    whole: VecDeque<String>,
}

// === impl Events ===

impl Events {
    pub(super) fn new(
        client: AdminClient,
        silence: Duration,
        body: Incoming,
        connection: AbortOnDropHandle<()>,
    ) -> Self {
        let gathered = Gathered::default();
        Self { client, silence, body, gathered, _connection: connection }
    }

    /// The data of the next event that has some.
    ///
    /// # Errors
    /// The stream has ended or fallen silent, or an event is too large.
    pub async fn next(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(data) = self.gathered.whole.pop_front() {
                return Ok(data);
            }
            let url = &self.client.url;
            let frame = match tokio::time::timeout(self.silence, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.client.away(&error)),
                Ok(None) => return Err(Failure::Away(format!("{url} has ended the stream"))),
                Err(_) => {
                    let silent = format!("{url} has sent nothing for {:?}", self.silence);
                    return Err(Failure::Away(silent));
                }
            };
            let bytes = frame.into_data().unwrap_or_default();
            if !self.gathered.take(&bytes, MAX_ANSWER) {
                return Err(Failure::Foreign(format!(
                    "{url} sends an event of more than {MAX_ANSWER} bytes"
                )));
            }
        }
    }
}

// === impl Gathered ===

impl Gathered {
    /// Takes the next bytes; whether the event that has begun is within the bound.
    fn take(&mut self, bytes: &[u8], bound: usize) -> bool {
        let Self { lines, begun, whole } = self;
        lines.feed(bytes, |data| match data {
            Some(data) => begun.extend_from_slice(data),
            None => {
                let event = String::from_utf8_lossy(begun).trim().to_owned();
                begun.clear();
                // A comment ends in a blank line, too.
                whole.extend((!event.is_empty()).then_some(event));
            }
        });
        begun.len() <= bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_at_every_split_and_comments_are_none() {
        let stream = "event: sight\ndata: {\"a\":\ndata: 1}\n\n: keep-alive\n\nevent: x\n\ndata: \u{fc}\r\n\r\n";
        let bytes = stream.as_bytes();
        for at in 0..=bytes.len() {
            let mut gathered = Gathered::default();
            assert!(gathered.take(&bytes[..at], 99) && gathered.take(&bytes[at..], 99));
            assert_eq!(gathered.whole, ["{\"a\":\n 1}", "\u{fc}"], "split at {at}");
        }
    }

    #[test]
    fn an_event_without_end_is_noticed() {
        let mut gathered = Gathered::default();
        assert!(gathered.take(b"data: 12345", 6));
        assert!(!gathered.take(b"6", 6));
    }
}
