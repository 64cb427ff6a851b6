//! Follows the frames of an HTTP/2 client (RFC 9113 section 4) across any split of its bytes, as far as
//! to say whether a head has begun and not ended.
//!
//! A head is a HEADERS frame and its CONTINUATIONs up to the flag END_HEADERS; nothing else of the connection may
//! come in between, so one that does not end stops everything. Judges no frame, which is h2's work.

use super::h2_frames::{CONTINUATION, END_HEADERS, FrameScanner, HEADERS, Seen};

/// What has been seen of one connection, behind its preface.
#[derive(Clone, Debug, Default)]
pub struct HeadScanner {
    frames: FrameScanner,
    inside: bool,
}

// === impl HeadScanner ===

impl HeadScanner {
    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let inside = &mut self.inside;
        self.frames.feed(bytes, |seen| match seen {
            Seen::Begin(frame) => *inside |= frame.kind == HEADERS,
            Seen::End(frame) => {
                let of_head = [HEADERS, CONTINUATION].contains(&frame.kind);
                *inside &= !(of_head && frame.flags & END_HEADERS != 0);
            }
        });
    }

    /// Whether a head has begun and not ended.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn a_head_ends_with_its_flag_however_the_bytes_are_split() {
        // SETTINGS, a whole head, DATA whose payload looks like a head, a head in three frames, PING.
        let frames = [
            (frame(4, 0, &[0, 3, 0, 0, 0, 9]), false),
            (frame(HEADERS, END_HEADERS | 1, b"abc"), false),
            (frame(0, 0, &frame(HEADERS, 0, b"xyz")), false),
            (frame(HEADERS, 0, b"a"), true),
            (frame(CONTINUATION, 0, b""), true),
            (frame(CONTINUATION, END_HEADERS, b"bc"), false),
            (frame(6, 1, &[7; 8]), false),
            (frame(HEADERS, END_HEADERS, b""), false),
        ];
        let all: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let mut ends = Vec::new();
        for (bytes, inside) in &frames {
            let before = ends.last().map_or(0, |(end, _)| *end);
            ends.push((before + bytes.len(), *inside));
        }
        for first in 0..all.len() {
            for second in first..=all.len() {
                let mut scanner = HeadScanner::default();
                let (mut at, mut seen) = (0, Vec::new());
                for end in [first, second, all.len()] {
                    scanner.feed(&all[at..end]);
                    at = end;
                    if let Some((_, inside)) = ends.iter().find(|(end, _)| *end == at) {
                        seen.push(scanner.is_inside() == *inside);
                    }
                }
                assert!(seen.iter().all(|right| *right), "split at {first} and {second}");
                assert!(!scanner.is_inside());
            }
        }
    }

    #[test]
    fn a_head_has_begun_with_the_head_of_its_frame() {
        let mut scanner = HeadScanner::default();
        let bytes = frame(HEADERS, END_HEADERS, b"abc");
        for (at, byte) in bytes.iter().enumerate() {
            assert_eq!(scanner.is_inside(), (9..12).contains(&at), "before byte {at}");
            scanner.feed(&[*byte]);
        }
        assert!(!scanner.is_inside());
    }
}
