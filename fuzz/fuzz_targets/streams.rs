//! Scanners of bodies: the same result whatever the pieces, and no byte lost.
//!
//! The first byte of the input is the length of the pieces.

#![no_main]

use kagent_proxy::protocol::jsonrpc::request_id;
use kagent_proxy::protocol::sse::SseScanner;
use kagent_proxy::protocol::tasks::{TaskAnswer, TaskRequest};
use kagent_proxy::rewrite::endpoint::{EndpointEvent, HeldEvent, Map};
use kagent_proxy::rewrite::origin::path_absolute;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, stream)) = input.split_first() else { return };
    let piece = usize::from(piece).max(1);

    let (mut whole, mut pieces) = (SseScanner::default(), SseScanner::default());
    whole.feed(stream);
    stream.chunks(piece).for_each(|bytes| pieces.feed(bytes));
    assert_eq!(whole.events(), pieces.events());
    assert_eq!(whole.is_between(), pieces.is_between());

    for events in [false, true] {
        let (mut whole, mut pieces) = (TaskAnswer::new(events), TaskAnswer::new(events));
        whole.feed(stream);
        stream.chunks(piece).for_each(|bytes| pieces.feed(bytes));
        assert_eq!((whole.task(), whole.is_done()), (pieces.task(), pieces.is_done()));
    }
    let mut request = TaskRequest::default();
    stream.chunks(piece).for_each(|bytes| request.feed(bytes));
    assert_eq!(request.task(), TaskRequest::of(stream).task());

    // Every piece the same, and with nothing to change no byte is lost or made up.
    let keep = |_: &[u8]| None;
    assert_eq!(through(stream.chunks(piece), &keep), stream);
    let change = |url: &[u8]| path_absolute(url, &|host| host == "a");
    assert_eq!(through(stream.chunks(piece), &change), through(stream.chunks(1), &change));

    if let Some(id) = request_id(stream) {
        let id: serde_json::Value = serde_json::from_str(id).expect("an id is JSON");
        assert!(id.is_string() || id.is_number() || id.is_null());
    }
});

fn through<'s>(pieces: impl Iterator<Item = &'s [u8]>, map: &Map<'_>) -> Vec<u8> {
    let (mut event, mut out, mut open) = (EndpointEvent::default(), Vec::new(), true);
    for bytes in pieces {
        match open.then(|| event.feed(bytes, map)) {
            None => out.extend_from_slice(bytes),
            Some(HeldEvent::Wait(passed)) => out.extend(passed),
            Some(HeldEvent::Release(bytes)) => {
                out.extend(bytes);
                open = false;
            }
        }
    }
    out.extend(event.release());
    out
}
