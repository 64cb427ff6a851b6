//! Follows a `text/event-stream` (WHATWG HTML, section 9.2.6) across any split of its bytes: how many
//! events have ended, and whether the last byte was an event's end.
//!
//! Keeps a few bytes of state and none of the stream's.

/// The byte order mark that may stand in front of a stream, and is no part of its first line.
pub(super) const MARK: &[u8] = b"\xef\xbb\xbf";

/// An event that carries this message, which has no line break (MCP 2025-11-25, "Streamable HTTP").
#[must_use]
pub fn message_event(json: &str) -> String {
    format!("event: message\ndata: {json}\n\n")
}

/// The start of a stream, across any split: its mark is skipped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Bytes of a mark that have been seen; `None` behind it, or where there is none.
    seen: Option<usize>,
}

/// What has been seen of one stream.
#[derive(Clone, Debug, Default)]
pub struct SseScanner {
    start: Start,
    place: Place,
    /// The block under way has a line that is not a comment.
    has_field: bool,
    events: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nothing, or a blank line, lies behind.
    #[default]
    Between,
    /// A line lies behind, its block has not ended.
    LineStart,
    InLine,
    /// Behind a CR, which a LF may complete; whether the line was blank.
    AfterCr {
        blank: bool,
    },
}

// === impl Start ===

impl Default for Start {
    fn default() -> Self {
        Self { seen: Some(0) }
    }
}

impl Start {
    /// What of the next bytes is no part of the mark. If only its beginning came, `text` is told first: the first line
    /// has begun by that.
    pub(super) fn skip<'b>(&mut self, mut bytes: &'b [u8], text: impl FnOnce()) -> &'b [u8] {
        while let (Some(seen), Some((byte, rest))) = (self.seen, bytes.split_first()) {
            if MARK.get(seen) != Some(byte) {
                self.seen = None;
                if seen > 0 {
                    text();
                }
                return bytes;
            }
            self.seen = Some(seen + 1).filter(|seen| *seen < MARK.len());
            bytes = rest;
        }
        bytes
    }

    /// Whether it lies behind, with its mark if there was one.
    pub(super) const fn is_over(self) -> bool {
        self.seen.is_none()
    }

    /// Whether the next byte decides if this is a mark.
    fn is_open(self) -> bool {
        self.seen.is_some_and(|seen| seen > 0)
    }
}

// === impl SseScanner ===

impl SseScanner {
    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        let Self { start, place, has_field, .. } = self;
        bytes = start.skip(bytes, || (*place, *has_field) = (Place::InLine, true));
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.place {
                Place::InLine => {
                    let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else { return };
                    let cr = bytes.get(end) == Some(&b'\r');
                    self.place =
                        if cr { Place::AfterCr { blank: false } } else { Place::LineStart };
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                }
                Place::AfterCr { blank } => {
                    self.place = if blank { Place::Between } else { Place::LineStart };
                    if byte == b'\n' {
                        bytes = rest;
                    }
                }
                Place::Between | Place::LineStart => {
                    self.begin_line(byte);
                    bytes = rest;
                }
            }
        }
    }

    /// Events that have ended: blocks with at least one field. Comments are none.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Whether the stream is between events, so that a comment may stand here and an end loses
    /// nothing. Not behind a lone CR: its LF may be on its way.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.place == Place::Between && !self.start.is_open()
    }

    fn begin_line(&mut self, byte: u8) {
        self.place = match byte {
            b'\n' => {
                self.end_block();
                Place::Between
            }
            b'\r' => {
                self.end_block();
                Place::AfterCr { blank: true }
            }
            b':' => Place::InLine,
            _ => {
                self.has_field = true;
                Place::InLine
            }
        };
    }

    fn end_block(&mut self) {
        self.events += u64::from(self.has_field);
        self.has_field = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAMS: &[(&str, u64, bool)] = &[
        ("", 0, true),
        ("data: 1\n\n", 1, true),
        ("data: 1\r\n\r\n", 1, true),
        ("data: 1\r\n\r\nid: 7\r\ndata: 2\r\n\r\n", 2, true),
        ("data: 1\r\rdata: 2\r\r", 2, false),
        (": ping\n\n", 0, true),
        (": ping\n", 0, false),
        (": ping\ndata: 1\n\n: ping\n\n", 1, true),
        ("event: endpoint\ndata: /messages?x=1\n\n", 1, true),
        ("\n\n\ndata:\n\n\n", 1, true),
        ("data: 1\n\ndata: {\"half", 1, false),
        ("data: 1\n", 0, false),
        ("data: 1", 0, false),
        ("\u{feff}", 0, true),
        ("\u{feff}: ping\n\n", 0, true),
        ("\u{feff}data: 1\n\n", 1, true),
        ("\u{fefe}: ping\n\n", 1, true),
        ("\u{feff}\u{feff}: ping\n\n", 1, true),
        (": ping\n\n\u{feff}: ping\n\n", 1, true),
    ];

    #[test]
    fn events_and_places_are_the_same_at_every_split() {
        for &(stream, events, between) in STREAMS {
            for at in 0..=stream.len() {
                for to in at..=stream.len() {
                    let mut scanner = SseScanner::default();
                    scanner.feed(&stream.as_bytes()[..at]);
                    scanner.feed(&stream.as_bytes()[at..to]);
                    scanner.feed(&stream.as_bytes()[to..]);
                    assert_eq!(scanner.events(), events, "{stream:?} split at {at}, {to}");
                    assert_eq!(scanner.is_between(), between, "{stream:?} split at {at}, {to}");
                }
            }
        }
    }

    /// The reference reads whole lines, as the specification words it.
    fn reference(stream: &str) -> (u64, bool) {
        let unified = stream.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut field) = (0, false);
        for line in unified.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            match line {
                "\n" => {
                    events += u64::from(field);
                    field = false;
                }
                line => field |= !line.starts_with(':'),
            }
        }
        let whole = unified.is_empty() || unified == "\n" || unified.ends_with("\n\n");
        (events, whole && !stream.ends_with('\r'))
    }

    proptest::proptest! {
        #[test]
        fn any_stream_in_any_pieces_is_read_as_the_reference_reads_it(
            stream in "[a:\r\n]{0,30}", pieces in proptest::collection::vec(1usize..5, 0..30),
        ) {
            let mut scanner = SseScanner::default();
            let mut rest = stream.as_bytes();
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                scanner.feed(now);
                rest = later;
            }
            scanner.feed(rest);
            proptest::prop_assert_eq!((scanner.events(), scanner.is_between()), reference(&stream));
        }
    }
}
