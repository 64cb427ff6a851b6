//! The scanners of calls, outcomes and tools beside a parser that reads the whole body: messages of every shape, in
//! every framing, in any pieces.
//!
//! What makes the messages stands in scanners/messages.rs. Nothing here opens a socket.

mod compare;
mod messages;
mod oracle;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use compare::{Read, body_agrees, message_agrees, stream_agrees};
use messages::{body, message, stream};

/// Longer ones are not split everywhere.
const SMALL: usize = 200;

/// Pieces of these lengths, over and over.
fn cut<'b>(mut bytes: &'b [u8], lengths: &[usize]) -> Vec<&'b [u8]> {
    let mut all = Vec::new();
    for length in lengths.iter().cycle() {
        let (piece, rest) = bytes.split_at((*length).min(bytes.len()));
        all.push(piece);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    all
}

/// Asserts that these pieces are read as the whole is, and the halves at every split of what is small.
fn pieces_agree(bytes: &[u8], pieces: &[&[u8]]) {
    let whole = Read::of(&[bytes]);
    whole.agrees(pieces);
    if bytes.len() <= SMALL {
        (0..=bytes.len()).for_each(|at| whole.agrees(&[&bytes[..at], &bytes[at..]]));
    }
}

/// Some bytes are others, or are gone, or are there twice; and the end is missing.
fn damaged(mut bytes: Vec<u8>, damages: &[(Index, u8, u8)]) -> Vec<u8> {
    for (at, what, byte) in damages {
        let at = at.index(bytes.len() + 1);
        match what {
            0 if at < bytes.len() => bytes[at] = *byte,
            1 if at < bytes.len() => drop(bytes.remove(at)),
            2 => bytes.insert(at, *byte),
            3 => bytes.truncate(at),
            _ => bytes.extend_from_within(at..),
        }
    }
    bytes
}

fn damages() -> impl Strategy<Value = Vec<(Index, u8, u8)>> {
    let byte = prop_oneof![prop::sample::select(&b"\"\\{}[],: \n\r\xef\xff"[..]), any::<u8>()];
    vec((any::<Index>(), 0u8..5, byte), 1..6)
}

proptest! {
    #[test]
    fn a_body_is_read_as_a_parser_of_the_whole_reads_it(body in body(), lengths in vec(1usize..40, 1..8)) {
        let bytes = body.as_bytes();
        prop_assert!(body_agrees(bytes), "no JSON: {body}");
        pieces_agree(bytes, &cut(bytes, &lengths));
    }

    #[test]
    fn a_stream_is_read_as_a_parser_of_its_events_reads_it(stream in stream(), lengths in vec(1usize..40, 1..8)) {
        let bytes = stream.as_bytes();
        prop_assert!(stream_agrees(bytes), "an event is no JSON: {stream}");
        pieces_agree(bytes, &cut(bytes, &lengths));
    }

    #[test]
    fn a_message_and_what_a_cut_leaves_of_it_say_what_a_parser_reads(message in message()) {
        message_agrees(message.as_bytes());
    }

    #[test]
    fn damaged_messages_are_read_alike_in_any_pieces(
        text in prop_oneof![body(), stream()], damages in damages(), lengths in vec(1usize..40, 1..8),
    ) {
        let bytes = damaged(text.into_bytes(), &damages);
        // Some are JSON still.
        let _judged = (body_agrees(&bytes), stream_agrees(&bytes));
        pieces_agree(&bytes, &cut(&bytes, &lengths));
    }

    #[test]
    fn any_bytes_are_read_alike_in_any_pieces(bytes in vec(any::<u8>(), 0..600), lengths in vec(1usize..40, 1..8)) {
        let _judged = (body_agrees(&bytes), stream_agrees(&bytes));
        pieces_agree(&bytes, &cut(&bytes, &lengths));
    }
}

#[test]
fn what_is_nested_without_end_is_read_alike_in_any_pieces() {
    for part in
        ["[", "{\"a\":", "{\"params\":", "{\"result\":[", "[{\"result\":{\"tools\":[", "]", "\\"]
    {
        let deep = format!("data: {}", part.repeat(100_000));
        for text in [deep.as_str(), &deep["data: ".len()..]] {
            pieces_agree(text.as_bytes(), &cut(text.as_bytes(), &[1, 4093]));
        }
    }
}

/// A line that has ended is not yet the end of its event.
#[test]
fn a_stream_that_breaks_off_behind_a_line_has_not_brought_its_event() {
    let event = "data: {\"id\":3,\"result\":{}}";
    for (end, answered) in
        [("", false), ("\n", false), ("\r", false), ("\r\n", false), ("\n\n", true)]
    {
        let stream = format!("{event}{end}");
        assert!(stream_agrees(stream.as_bytes()), "{stream:?}");
        assert_eq!(oracle::is_answered(stream.as_bytes()), Some(answered), "{stream:?}");
    }
}
