//! Follows the frames of one direction of an HTTP/2 connection (RFC 9113 section 4.1) across any split of its bytes.
//!
//! Keeps the head of the frame under way and nothing of its payload; judges no frame, which is h2's work.

/// Types of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
/// The beginning of a head.
pub const HEADERS: u8 = 1;
/// The end of a stream before its time.
pub const RST_STREAM: u8 = 3;
/// More of a head.
pub const CONTINUATION: u8 = 9;
/// The flag of DATA and HEADERS that end their stream.
pub const END_STREAM: u8 = 1;
/// The flag of HEADERS and CONTINUATION that end their head.
pub const END_HEADERS: u8 = 4;

const HEAD: usize = 9;

/// What stands in front of each frame's payload, but for the payload's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Its type.
    pub kind: u8,
    /// Its flags, whose meaning depends on the type.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The head of a frame.
    Begin(FrameHead),
    /// All of a frame.
    End(FrameHead),
}

/// What has been seen of one direction, behind the client's preface.
#[derive(Clone, Debug, Default)]
pub struct FrameScanner {
    /// The head of the frame under way.
    head: [u8; HEAD],
    /// How much of it has come.
    read: usize,
    /// Bytes of the frame's payload that are still to come.
    payload: usize,
}

// === impl FrameHead ===

impl FrameHead {
    fn of(bytes: [u8; HEAD]) -> Self {
        let [_, _, _, kind, flags, a, b, c, d] = bytes;
        // The first bit is reserved.
        Self { kind, flags, stream: u32::from_be_bytes([a & 0x7f, b, c, d]) }
    }
}

// === impl FrameScanner ===

impl FrameScanner {
    /// Takes the next bytes, and says what came with them.
    pub fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            if self.read < HEAD {
                let (now, rest) = bytes.split_at(bytes.len().min(HEAD - self.read));
                if let Some(room) = self.head.get_mut(self.read..self.read + now.len()) {
                    room.copy_from_slice(now);
                }
                self.read += now.len();
                bytes = rest;
                if self.read < HEAD {
                    return;
                }
                let [a, b, c, ..] = self.head;
                self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                see(Seen::Begin(FrameHead::of(self.head)));
            } else {
                let skipped = bytes.len().min(self.payload);
                self.payload -= skipped;
                bytes = bytes.split_at(skipped).1;
            }
            if self.payload == 0 {
                self.read = 0;
                see(Seen::End(FrameHead::of(self.head)));
            }
        }
    }

    /// Whether no frame has begun that has not ended.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.read == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_begin_and_end_in_their_places_however_the_bytes_are_split() {
        let frame = |kind, flags, stream: u32, payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            let head = [&[0, 0, length, kind, flags][..], &stream.to_be_bytes()].concat();
            ([&head, payload].concat(), FrameHead { kind, flags, stream: stream & 0x7fff_ffff })
        };
        let inner = frame(HEADERS, END_HEADERS, 1, b"xyz").0;
        let frames = [
            frame(4, 0, 0, &[0, 3, 0, 0, 0, 9]),
            frame(DATA, END_STREAM, 0x0001_0203, &inner),
            frame(HEADERS, END_HEADERS, 0x8000_0005, b""),
            frame(6, 1, 0, &[7; 8]),
        ];
        let all: Vec<u8> = frames.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let (mut expected, mut between, mut start) = (Vec::new(), vec![0], 0);
        for (bytes, head) in &frames {
            expected.push((start + HEAD, Seen::Begin(*head)));
            start += bytes.len();
            expected.push((start, Seen::End(*head)));
            between.push(start);
        }
        let mut scanner = FrameScanner::default();
        let mut seen = Vec::new();
        for (at, byte) in all.iter().enumerate() {
            assert_eq!(scanner.is_between(), between.contains(&at), "before byte {at}");
            scanner.feed(&[*byte], |what| seen.push((at + 1, what)));
        }
        assert_eq!(seen, expected);
        let expected: Vec<_> = expected.into_iter().map(|(_, what)| what).collect();
        for first in 0..all.len() {
            for second in first..=all.len() {
                let (mut scanner, mut seen, mut at) = (FrameScanner::default(), Vec::new(), 0);
                for end in [first, second, all.len()] {
                    scanner.feed(&all[at..end], |what| seen.push(what));
                    at = end;
                }
                assert_eq!(seen, expected, "split at {first} and {second}");
                assert!(scanner.is_between());
            }
        }
    }
}
