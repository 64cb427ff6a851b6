//! Follows the event stream that answers one JSON-RPC request (MCP 2025-11-25, "Streamable HTTP"): whether the
//! response has come, and whether the client could resume the stream.
//!
//! Keeps a few bytes of state and none of the stream's, at any split. Looks only at the members of each message,
//! never into what they hold.

/// What has been seen of one stream.
#[derive(Clone, Debug, Default)]
pub struct AnswerScanner {
    line: Line,
    /// The last line ended by a CR, which a LF may complete.
    cr: bool,
    json: Json,
    answered: bool,
    resumable: bool,
}

/// Where in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the field's name; the bytes that have come, five at most.
    Name([u8; 5], usize),
    /// Behind `data:`.
    Data,
    /// Behind any other name.
    Other,
}

/// A message as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Json {
    depth: u32,
    /// Inside a string; a key of the outermost object is remembered.
    string: bool,
    escaped: bool,
    /// A string that begins now is a key.
    key_next: bool,
    /// The bytes of a key.
    key: Option<([u8; 6], usize)>,
    /// It has `result` or `error`.
    response: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self::Name([0; 5], 0)
    }
}

// === impl AnswerScanner ===

impl AnswerScanner {
    /// Takes the next bytes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if self.cr && !bytes.is_empty() {
            self.cr = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while !bytes.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.part(line);
            let Some(&last) = rest.first() else { return };
            self.end_line();
            bytes = rest.get(1..).unwrap_or_default();
            if last == b'\r' {
                self.cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
    }

    /// Whether a whole event with a response has passed.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered
    }

    /// Whether an event had an id, by which the client would ask for the rest.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.resumable
    }

    /// Bytes of one line.
    fn part(&mut self, mut bytes: &[u8]) {
        while let (Line::Name(name, length), Some((&byte, rest))) =
            (&mut self.line, bytes.split_first())
        {
            bytes = rest;
            if byte == b':' {
                let name = name.get(..*length).unwrap_or_default();
                self.resumable |= name == b"id";
                self.line = if name == b"data" { Line::Data } else { Line::Other };
            } else if let Some(slot) = name.get_mut(*length) {
                *slot = byte;
                *length += 1;
            } else {
                self.line = Line::Other;
            }
        }
        if self.line == Line::Data {
            self.json.feed(bytes);
        }
    }

    fn end_line(&mut self) {
        if self.line == Line::default() {
            self.answered |= self.json.response;
            self.json = Json::default();
        }
        self.line = Line::default();
    }
}

// === impl Json ===

impl Json {
    fn feed(&mut self, mut bytes: &[u8]) {
        // The rest of a response is of no interest.
        while !self.response {
            if self.string {
                let Some(rest) = self.in_string(bytes) else { return };
                bytes = rest;
                continue;
            }
            let Some((&byte, rest)) = bytes.split_first() else { return };
            bytes = rest;
            match byte {
                b'"' => {
                    self.string = true;
                    self.key = (self.depth == 1 && self.key_next).then_some(([0; 6], 0));
                    self.key_next = false;
                }
                b'{' | b'[' => {
                    self.key_next = self.depth == 0 && byte == b'{';
                    self.depth = self.depth.saturating_add(1);
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b',' => self.key_next = self.depth == 1,
                _ => {}
            }
        }
    }

    /// What follows the string; `None` if it goes on.
    fn in_string<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        if self.escaped {
            self.escaped = bytes.is_empty();
            self.key = None;
            return bytes.get(1..);
        }
        let end = memchr::memchr2(b'"', b'\\', bytes);
        let text = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        if let Some((key, length)) = &mut self.key {
            match key.get_mut(*length..*length + text.len()) {
                Some(room) => {
                    room.copy_from_slice(text);
                    *length += text.len();
                }
                None => self.key = None,
            }
        }
        let end = end?;
        if bytes.get(end) == Some(&b'\\') {
            self.escaped = true;
        } else {
            self.string = false;
            if let Some((key, length)) = self.key.take() {
                let key = key.get(..length).unwrap_or_default();
                self.response = key == b"result" || key == b"error";
            }
        }
        bytes.get(end + 1..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stream, whether it has the answer, whether it can be resumed.
    const STREAMS: &[(&str, bool, bool)] = &[
        ("", false, false),
        ("data: {\"id\":1,\"result\":{}}\n\n", true, false),
        ("data: {\"id\":1,\"result\":{}}\r\n\r\n", true, false),
        ("data: {\"id\":1,\"result\":{}}\r\r", true, false),
        ("event: message\ndata:{\"error\":{},\"id\":1}\n\n", true, false),
        ("data: {\"id\":1,\"result\":{}}\n", false, false),
        ("data: {\"method\":\"a\",\"params\":{\"result\":1}}\n\n", false, false),
        ("data: {\"method\":\"result\",\"params\":[\"error\",{\"error\":1}]}\n\n", false, false),
        ("data: {\"a\\\"result\":1,\"resultx\":2,\"resul\":3,\"x\":\"result\"}\n\n", false, false),
        ("data: {\"method\":\"a\"}\n\ndata: {\ndata: \"result\": 1}\n\n", true, false),
        ("id: 7\ndata: {\"method\":\"a\"}\n\n", false, true),
        ("id\ndata: {}\n\nidx: 1\n\n: id: 1\n\n", false, false),
        ("data: [{\"result\":1}]\n\n", false, false),
        ("data: {\"a\":{\"b\":[1,2]},\"result\":null}\n\n", true, false),
    ];

    #[test]
    fn answers_are_found_at_every_split() {
        for &(stream, answered, resumable) in STREAMS {
            for at in 0..=stream.len() {
                for to in at..=stream.len() {
                    let mut scanner = AnswerScanner::default();
                    for part in [&stream[..at], &stream[at..to], &stream[to..]] {
                        scanner.feed(part.as_bytes());
                    }
                    let found = (scanner.is_answered(), scanner.is_resumable());
                    assert_eq!(found, (answered, resumable), "{stream:?} split at {at}, {to}");
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn serde_sees_the_same_members(key in "[a-z\"\\\\]{0,8}", value in ".{0,20}", own in proptest::bool::ANY) {
            let key = if own { "result".to_owned() } else { key };
            let message = serde_json::json!({"id": 1, "x": {"result": &value}, &key: [&value, {"error": 1}]});
            let mut scanner = AnswerScanner::default();
            scanner.feed(format!("data: {message}\n\n").as_bytes());
            let expected = message.get("result").is_some() || message.get("error").is_some();
            proptest::prop_assert_eq!(scanner.is_answered(), expected);
        }
    }
}
