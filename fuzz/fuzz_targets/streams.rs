//! Scanners of bodies: the same result whatever the pieces, and no byte lost.
//!
//! The first byte of the input is the length of the pieces.

#![no_main]

use kagent_proxy::protocol::jsonrpc::request_id;
use kagent_proxy::protocol::sse::SseScanner;
use kagent_proxy::rewrite::endpoint::{EndpointEvent, Held};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&piece, stream)) = input.split_first() else { return };
    let piece = usize::from(piece).max(1);

    let (mut whole, mut pieces) = (SseScanner::default(), SseScanner::default());
    whole.feed(stream);
    stream.chunks(piece).for_each(|bytes| pieces.feed(bytes));
    assert_eq!(whole.events(), pieces.events());
    assert_eq!(whole.is_between(), pieces.is_between());

    // Nobody is the backend but loopback, which a stream without an absolute URL cannot name.
    let (mut event, mut out, mut open) = (EndpointEvent::default(), Vec::new(), true);
    for bytes in stream.chunks(piece) {
        match open.then(|| event.feed(bytes, &|_| false)) {
            None => out.extend_from_slice(bytes),
            Some(Held::Wait(comments)) => out.extend(comments),
            Some(Held::Release(bytes)) => {
                out.extend(bytes);
                open = false;
            }
        }
    }
    out.extend(event.release());
    if !stream.windows(3).any(|w| w == b"://") {
        assert_eq!(out, stream);
    }

    if let Some(id) = request_id(stream) {
        let id: serde_json::Value = serde_json::from_str(id).expect("an id is JSON");
        assert!(id.is_string() || id.is_number() || id.is_null());
    }
});
