//! Streams in every pieces, with an `endpoint` event that changes and without one.

use super::*;
use crate::rewrite::origin::path_absolute;

fn map(url: &[u8]) -> Option<Vec<u8>> {
    path_absolute(url, &|host| host == "tools.kagent")
}

fn through(pieces: &[&[u8]]) -> String {
    let (mut event, mut out, mut open) = (EndpointEvent::default(), Vec::new(), true);
    for piece in pieces {
        if !open {
            out.extend_from_slice(piece);
            continue;
        }
        match event.feed(piece, &map) {
            HeldEvent::Wait(bytes) => out.extend(bytes),
            HeldEvent::Release(bytes) => {
                out.extend(bytes);
                assert!(!event.is_holding());
                open = false;
            }
        }
    }
    out.extend(event.release());
    String::from_utf8(out).unwrap()
}

fn at_every_split(stream: &str, expected: &str) {
    let bytes = stream.as_bytes();
    for at in 0..=bytes.len() {
        // Every two splits of the short ones, and every one of the long.
        let furthest = if bytes.len() > 130 { at } else { bytes.len() };
        for to in at..=furthest {
            let pieces = [&bytes[..at], &bytes[at..to], &bytes[to..]];
            assert_eq!(through(&pieces), expected, "{stream:?} split at {at}, {to}");
        }
    }
    let single: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(through(&single), expected, "{stream:?} byte by byte");
}

const BEFORE: &[&str] = &[
    "",
    "\u{feff}",
    "\u{feff}\n",
    "\u{feff}: hi\n\n",
    "\n\r\r\n",
    ": hi\r\n\r\n: ho\n",
    "retry: 3000\n\n",
    "id: 1\nretry\n",
    "event: ping\ndata: 1\n\n",
    "event: endpoint\n\n",
    "event:\ndata\r\ndata:\r\r",
    "event: message\ndata: {\"a\":\r\ndata: 1}\r\n\r\nid\n\n",
    "data: http://tools.kagent/m\n\n",
    "event: endpoint\nevent: ping\ndata: //tools.kagent\n\n",
];

const EVENTS: &[(&str, &str)] = &[
    (
        "event: endpoint\ndata: http://tools.kagent:8084/messages/?session_id=ab%2F\n\n",
        "event: endpoint\ndata: /messages/?session_id=ab%2F\n\n",
    ),
    ("data:http://tools.kagent/m\r\nevent:endpoint\r\n\r\n", "data:/m\r\nevent:endpoint\r\n\r\n"),
    ("event: endpoint\rdata: //tools.kagent/m\r\r", "event: endpoint\rdata: /m\r\r"),
    (
        "event: x\nevent: endpoint \ndata:  \\\\tools.kagent/m\n\n",
        "event: x\nevent: endpoint \ndata: /m\n\n",
    ),
    (
        "data: http://tools.kagent/\r\n: c\r\ndata: m\nevent: endpoint\ndata\nid: 1\n\n",
        "data: /m\r\n: c\nevent: endpoint\nid: 1\n\n",
    ),
    (
        "event: endpoint\ndata: http://tools.kagent/m\rdata\ndata\r\n\n",
        "event: endpoint\ndata: /m\r\n\n",
    ),
];

#[test]
fn the_url_changes_at_every_split_whatever_stands_before() {
    for before in BEFORE {
        for (event, expected) in EVENTS {
            let after = "event: endpoint\ndata: http://tools.kagent/later\n\n";
            at_every_split(
                &format!("{before}{event}{after}"),
                &format!("{before}{expected}{after}"),
            );
        }
    }
}

#[test]
fn everything_else_passes_byte_for_byte() {
    for stream in [
        "event: endpoint\ndata: /messages/?session_id=1\n\n",
        "event: endpoint\ndata: http://other.ns/m\n\nevent: endpoint\ndata: http://tools.kagent/m\n\n",
        "event: message\ndata: http://tools.kagent/m\n\n",
        "event: endpoint\nevent\ndata: http://tools.kagent/m\n\n",
        "Event: endpoint\ndata: http://tools.kagent/m\n\n",
        " event: endpoint\ndata: http://tools.kagent/m\n\n",
        "event: endpoint\n\u{feff}data: http://tools.kagent/m\n\n",
        "event: endpoint\ndata: http://tools.kag",
        "event: endpoint\ndata: x\ndata: http://tools.kagent/\n\n",
        ": only a comment\n\n",
        "\u{feff}",
        "",
    ] {
        at_every_split(stream, stream);
    }
}

#[test]
fn only_what_may_be_the_event_is_held() {
    let mut event = EndpointEvent::default();
    let mut feed = |bytes: &str| match event.feed(bytes.as_bytes(), &map) {
        HeldEvent::Wait(out) => String::from_utf8(out).unwrap(),
        HeldEvent::Release(out) => format!("released {}", String::from_utf8(out).unwrap()),
    };
    assert_eq!(feed(": ping\n\n"), ": ping\n\n");
    assert_eq!(feed(": pi"), "");
    assert_eq!(feed("ng\nretry: 1\nda"), ": ping\nretry: 1\n");
    assert_eq!(feed("ta: 1\r\n\r"), "data: 1\r\n\r");
    assert_eq!(feed("\ndata: [1,"), "\ndata: [1,");
    assert_eq!(feed("\n"), "\n", "no blank line: its own end");
    assert_eq!(
        feed("data: http://tools.kagent"),
        "data: http://tools.kagent",
        "part of that event"
    );
    assert_eq!(feed("\n\nevent: endp"), "\n\n");
    assert_eq!(feed("oint\ndata: http://tools.kagent/m\n"), "");
    assert_eq!(feed("\r: more"), "released event: endpoint\ndata: /m\n\r: more");
}

#[test]
fn the_bounds_hold() {
    let long = format!("data: x{}", "x".repeat(MAX_EVENT));
    let endpoint = "event: endpoint\ndata: http://tools.kagent/m\n\n";
    let mut event = EndpointEvent::default();
    assert_eq!(event.feed(long.as_bytes(), &map), HeldEvent::Wait(long.into_bytes()));
    assert_eq!(event.feed(b"\n\n", &map), HeldEvent::Wait(b"\n\n".to_vec()));
    let changed = endpoint.replace("http://tools.kagent", "").into_bytes();
    assert_eq!(event.feed(endpoint.as_bytes(), &map), HeldEvent::Release(changed));

    let (mut event, mut seen) = (EndpointEvent::default(), 0);
    let message = "data: {}\n\n";
    while event.feed(message.as_bytes(), &map) == HeldEvent::Wait(message.as_bytes().to_vec()) {
        seen += message.len();
    }
    assert!((MAX_BEFORE..MAX_BEFORE * 2).contains(&seen), "{seen}");
    let (mut event, comment) = (EndpointEvent::default(), b": hi\n\n".as_slice());
    for _ in 0..2 * MAX_BEFORE / comment.len() {
        assert_eq!(event.feed(comment, &map), HeldEvent::Wait(comment.to_vec()));
    }
    assert!(matches!(event.feed(endpoint.as_bytes(), &map), HeldEvent::Release(_)));
}

#[test]
fn a_map_may_change_any_url() {
    let mut event = EndpointEvent::default();
    let token = |url: &[u8]| Some([url, b"&token=1"].concat());
    let out = event.feed(b"event: endpoint\ndata: /m?s=1\n\n", &token);
    assert_eq!(out, HeldEvent::Release(b"event: endpoint\ndata: /m?s=1&token=1\n\n".to_vec()));
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_lost_or_made_up(stream in "(event: endpoint|data: \\{?|[evntda:/ \r\n\u{feff}]){0,20}", at in 0usize..200) {
        let at = at.min(stream.len());
        let (first, second) = stream.as_bytes().split_at(at);
        proptest::prop_assert_eq!(through(&[first, second]), stream);
    }

    #[test]
    fn pieces_make_no_difference(stream in "(event: ?|endpoint|data: ?|http://tools.kagent/|[:xi\r\n]){0,30}") {
        let single: Vec<_> = stream.as_bytes().chunks(1).collect();
        proptest::prop_assert_eq!(through(&single), through(&[stream.as_bytes()]));
    }
}
