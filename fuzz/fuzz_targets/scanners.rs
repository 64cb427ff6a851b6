//! What the proxy sees of calls: any bytes are read alike in any pieces, and JSON as a parser of the whole reads it.
//!
//! The first two bytes of the input are the lengths of the pieces, in turn.

#![no_main]

#[path = "../../tests/it/scanners/compare.rs"]
mod compare;
#[path = "../../tests/it/scanners/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [one, two, bytes @ ..] = input else { return };
    let (mut rest, mut pieces) = (bytes, Vec::new());
    for length in [one, two].into_iter().cycle() {
        let (piece, behind) = rest.split_at(usize::from(*length).max(1).min(rest.len()));
        pieces.push(piece);
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    compare::Read::of(&[bytes]).agrees(&pieces);
    if bytes.len() <= 512 && bytes.trim_ascii_start().starts_with(b"{") {
        compare::message_agrees(bytes);
    }
    let _judged = (compare::body_agrees(bytes), compare::stream_agrees(bytes));
});
