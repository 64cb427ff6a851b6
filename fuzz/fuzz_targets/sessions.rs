//! Tokens of sessions, letters between replicas, and what MCP messages say: no bytes make them panic, none are
//! another's session, and where a stream is split makes no difference.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use kagent_proxy::protocol::answered::AnswerScanner;
use kagent_proxy::protocol::jsonrpc::{Message, request_id};
use kagent_proxy::protocol::mcp;
use kagent_proxy::session::keys::Keyring;
use kagent_proxy::session::letter::{Letter, PeerRequest, PeerResponse};
use kagent_proxy::session::token::Session;
use libfuzzer_sys::fuzz_target;

static KEYS: LazyLock<Keyring> = LazyLock::new(|| Keyring::random().expect("a key"));
static OWN: LazyLock<(Session, String)> = LazyLock::new(|| {
    let session = Session {
        issued: 1_790_000_000,
        address: ([10, 0, 0, 7], 8080).into(),
        uid: Some("uid".to_owned()),
        id: b"server-session".to_vec(),
        caller: None,
        params: Some("{}".to_owned()),
        version: None,
    };
    let (token, _) = session.seal(&KEYS, "a.b").expect("sealed");
    (session, token)
});

fuzz_target!(|data: &[u8]| {
    tokens(data);
    messages(data);
});

fn tokens(data: &[u8]) {
    assert!(Session::open(&KEYS, "a.b", data).is_err());
    assert!(Session::open(&KEYS, "a.b", &[b"kp1.", data].concat()).is_err());
    // What is sealed may be anything once a key leaks to a later version.
    if let Some(mut sealed) = KEYS.seal(b"a.b", data) {
        let _whatever_it_holds = KEYS.open(b"a.b", &mut sealed);
    }
    // One byte of a good token is another.
    if let [at, to, ..] = *data {
        let (session, token) = &*OWN;
        let mut changed = token.clone().into_bytes();
        let at = usize::from(at) % changed.len();
        changed[at] = to;
        match Session::open(&KEYS, "a.b", &changed) {
            Ok((opened, _)) => {
                assert_eq!((&opened, changed.as_slice()), (session, token.as_bytes()))
            }
            Err(_) => assert_ne!(changed.as_slice(), token.as_bytes()),
        }
    }
    let now = Duration::from_secs(1_790_000_000);
    assert!(Letter::<PeerRequest>::open(&KEYS, now, &mut data.to_vec()).is_none());
    assert!(Letter::<PeerResponse>::open(&KEYS, now, &mut data.to_vec()).is_none());
}

fn messages(data: &[u8]) {
    let message = Message::read(data);
    if message.whole {
        assert_eq!(message.id.is_some(), message.id.is_some_and(|id| !id.is_empty()));
    }
    let _any = (request_id(data), mcp::is_session_unknown(data), mcp::may_be_initialize(data));
    if let Some(params) = mcp::initialize_params(data) {
        let again = mcp::initialize("x", &params);
        assert_eq!(mcp::initialize_params(again.as_bytes()), Some(params.clone()));
        let _any = (mcp::is_python_1(&params), mcp::asked_version(&params));
    }
    for events in [false, true] {
        let _any = mcp::initialize_answer(data, events, "x");
    }
    let mut whole = AnswerScanner::default();
    whole.feed(data);
    let mut split = AnswerScanner::default();
    data.chunks(1 + data.len() / 7).for_each(|part| split.feed(part));
    let seen =
        |scanner: &AnswerScanner| (scanner.is_answered(), format!("{:?}", scanner.last_id()));
    assert_eq!(seen(&whole), seen(&split));
}
