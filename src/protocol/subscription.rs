//! The event stream of a `subscriptions/listen` (MCP 2026-07-28, "Subscriptions"): how far it has come, and the result
//! that ends it in order.
//!
//! Its first message is `notifications/subscriptions/acknowledged`, its last one the response, which a client waits for
//! that is not to take the end for a loss. Pure, at any split of the stream's bytes. Knows no drain.

use super::event_data::Messages;
use super::jsonrpc::Message;
use super::places::{Found, Places};

/// The method that opens such a stream.
const LISTEN: &str = "subscriptions/listen";
/// What the server says first on it.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// A subscription, as far as its stream has been seen.
#[derive(Debug)]
pub struct Subscription {
    /// That of the request, as its client wrote it.
    id: String,
    messages: Messages<Place>,
    state: State,
}

/// How far its stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been promised.
    Asked,
    /// The server has acknowledged it.
    Open,
    /// The server has answered the request: it ends by itself.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Message,
    Method,
    Answer,
}

// === impl Subscription ===

impl Subscription {
    /// The one that these messages of a request's body ask for; `None` if they ask for something else.
    #[must_use]
    pub fn of(asked: &[Message<'_>]) -> Option<Self> {
        let [only] = asked else { return None };
        let id = only.id.filter(|id| *id != "null")?;
        (only.method.as_deref() == Some(LISTEN)).then(|| Self {
            id: id.to_owned(),
            messages: Messages::new(Places::new(Place::Message, said), true),
            state: State::Asked,
        })
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        let Self { messages, state, .. } = self;
        if *state == State::Answered {
            return;
        }
        messages.feed(bytes, &mut |place, found| match (place, found) {
            (Place::Method, Found::Text(method))
                if method == ACKNOWLEDGED && *state == State::Asked =>
            {
                *state = State::Open;
            }
            (Place::Answer, _) => *state = State::Answered,
            _ => {}
        });
    }

    /// Whether the server has acknowledged it and has not ended it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The response by which a server ends it in order (`SubscriptionsListenResult`).
    #[must_use]
    pub fn end(&self) -> String {
        let id = &self.id;
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}},"resultType":"complete"}}}}"#
        )
    }
}

fn said(place: Place, key: &[u8]) -> Option<Place> {
    Some(match (place, key) {
        (Place::Message, b"method") => Place::Method,
        (Place::Message, b"result" | b"error") => Place::Answer,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::jsonrpc::messages;

    fn asked(body: &str) -> Option<Subscription> {
        Subscription::of(&messages(body.as_bytes()))
    }

    fn listening() -> Subscription {
        asked(r#"{"jsonrpc":"2.0","id":"listen-1","method":"subscriptions/listen","params":{}}"#)
            .unwrap()
    }

    #[test]
    fn only_one_request_with_an_id_asks_for_it() {
        for (body, id) in [
            (
                r#"{"method":"subscriptions/listen","params":{"notifications":{}},"id":7}"#,
                Some("7"),
            ),
            (r#"{"id":"a\"b","method":"subscriptions/listen"}"#, Some(r#""a\"b""#)),
            (r#"{"id":null,"method":"subscriptions/listen"}"#, None),
            (r#"{"method":"subscriptions/listen"}"#, None),
            (r#"{"id":1,"method":"tools/call","params":{"name":"subscriptions/listen"}}"#, None),
            (r#"[{"id":1,"method":"subscriptions/listen"},{"id":2,"method":"ping"}]"#, None),
            (r#"{"id":1,"method":"subscriptions/listen","#, Some("1")),
            ("subscriptions/listen", None),
        ] {
            assert_eq!(asked(body).map(|one| one.id).as_deref(), id, "{body}");
        }
    }

    #[test]
    fn it_is_open_between_acknowledgement_and_answer_at_every_split() {
        const ACK: &str = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/subscriptions/acknowledged\",\
            \"params\":{\"notifications\":{},\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":\"listen-1\"}}}\n\n";
        const CHANGED: &str = "data: {\"params\":{\"result\":1,\"method\":\"x\"},\"method\":\"notifications/tools/list_changed\"}\r\n\r\n";
        const RESULT: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":\"listen-1\",\"result\":{\"resultType\":\"complete\"}}\n\n";
        const ERROR: &str = "data: {\"id\":\"listen-1\",\"error\":{\"code\":-32603}}\n\n";
        const NESTED: &str =
            "data: {\"params\":{\"method\":\"notifications/subscriptions/acknowledged\"}}\n\n";
        for (stream, open) in [
            (": ping\n\n".to_owned(), false),
            (CHANGED.to_owned(), false),
            (NESTED.to_owned(), false),
            (ACK.to_owned(), true),
            (format!(": ping\n\n{ACK}: ping\n\n{CHANGED}{CHANGED}"), true),
            (format!("{ACK}{CHANGED}{RESULT}"), false),
            (format!("{ACK}{ERROR}"), false),
            (format!("{RESULT}{ACK}"), false),
            (ERROR.to_owned(), false),
        ] {
            let bytes = stream.as_bytes();
            for at in 0..=bytes.len() {
                let mut subscription = listening();
                subscription.feed(&bytes[..at]);
                subscription.feed(&bytes[at..]);
                assert_eq!(subscription.is_open(), open, "{stream:?} split at {at}");
            }
        }
    }

    #[test]
    fn its_end_is_the_result_that_the_schema_asks_for() {
        let end: serde_json::Value = serde_json::from_str(&listening().end()).unwrap();
        let expected = serde_json::json!({"jsonrpc": "2.0", "id": "listen-1", "result": {
            "resultType": "complete", "_meta": {"io.modelcontextprotocol/subscriptionId": "listen-1"}}});
        assert_eq!(end, expected);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(0u8.., 0..200)) {
            let mut subscription = listening();
            subscription.feed(&bytes);
            proptest::prop_assert!(!subscription.is_open());
        }
    }
}
