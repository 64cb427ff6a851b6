//! Responses over HTTP/1.1: however they are split, they are read in one way, and end.

#![no_main]

use http::HeaderMap;
use kagent_proxy::upstream::faults::HeadLimits;
use kagent_proxy::upstream::h1::body::{Decoded, Decoder};
use kagent_proxy::upstream::h1::head;
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits::new(8192, 32);

/// Data and trailers of a body that comes in these pieces, and what is left behind it.
fn decoded(
    mut decoder: Decoder,
    pieces: [&[u8]; 2],
) -> Option<(Vec<u8>, Option<HeaderMap>, usize)> {
    let (mut data, mut behind) = (Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let Decoded { data: length, used } = decoder.decode(&mut piece).ok()?;
        assert!(length <= used && used <= piece.len());
        assert!(used == piece.len() || decoder.has_ended(), "all is taken before the end");
        data.extend_from_slice(&piece[..length]);
        behind += piece.len() - used;
    }
    let trailers = decoder.take_trailers().ok()?;
    decoder.may_end().then_some((data, trailers, behind))
}

fuzz_target!(|input: (u16, bool, &[u8])| {
    let (at, to_head, bytes) = input;
    let mut map = HeaderMap::new();
    let Ok(Some(first)) = head::read(bytes, LIMITS, to_head, &mut map) else { return };
    assert!(first.length <= LIMITS.bytes() && first.response.headers().len() <= LIMITS.fields());
    // No shorter start is a head, and none is refused.
    for end in 0..first.length {
        assert!(matches!(head::read(&bytes[..end], LIMITS, to_head, &mut map), Ok(None)));
    }
    let rest = &bytes[first.length..];
    let make = || head::read(bytes, LIMITS, to_head, &mut HeaderMap::new()).unwrap().unwrap().body;
    let whole = decoded(make(), [rest, &[]]);
    let (start, end) = rest.split_at(usize::from(at) % (rest.len() + 1));
    assert_eq!(whole, decoded(make(), [start, end]), "split at {}", start.len());
});
