//! Where the body of a response ends, and what of the bytes is data (RFC 9112 sections 6 and 7).
//!
//! Sans-I/O: the bytes of each read are decoded in place, so that all chunks of one read become one piece of
//! data. Knows no head, no socket and no request.

use http::HeaderMap;

use super::Fault;
use super::head::fields;

/// Bytes behind the size of one chunk, which are not passed on, and of the trailer section, at most. Of each chunk,
/// for a stream that lasts has no end of them.
const MAX_EXTRA: usize = 16 * 1024;
/// Digits of a chunk's size that fit 64 bits.
const MAX_DIGITS: u8 = 16;

/// The rest of a body.
#[derive(Debug)]
pub enum Decoder {
    /// This many bytes.
    Length(u64),
    /// Chunks; boxed, so that most bodies do not carry its room.
    Chunked(Box<Chunked>),
    /// Everything until the connection is closed.
    UntilClose,
    /// Nothing more.
    Ended,
}

/// What a piece of input held.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of data, which stand at the start of the input now.
    pub data: usize,
    /// Bytes of the input that belong to the body; what is behind them does not.
    pub used: usize,
}

/// The state between two bytes of a chunked body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Bytes behind this chunk's size, or in the trailer section.
    extra: usize,
    /// The trailer section as it came, with its last line end.
    trailers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the size: its value and its digits.
    Size(u64, u8),
    /// Behind the size, in spaces.
    Space(u64),
    /// In an extension, within quotes or not, behind a backslash or not.
    Extension {
        size: u64,
        quoted: bool,
        escaped: bool,
    },
    /// Behind the CR of the size's line.
    SizeLf(u64),
    /// In data, with this much left.
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailer section, at the start of a line.
    Line,
    /// In a line of it.
    Field,
    /// Behind the CR of the empty line.
    LastLf,
    Ended,
}

impl Default for State {
    fn default() -> Self {
        Self::Size(0, 0)
    }
}

// === impl Decoder ===

impl Decoder {
    /// A chunked body from its start.
    #[must_use]
    pub fn chunked() -> Self {
        Self::Chunked(Box::default())
    }

    /// A body of this length.
    #[must_use]
    pub const fn length(length: u64) -> Self {
        if length == 0 { Self::Ended } else { Self::Length(length) }
    }

    /// Whether nothing more belongs to the body.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match self {
            Self::Ended => true,
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == State::Ended,
            Self::UntilClose => false,
        }
    }

    /// Bytes of data that are still to come, where that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Ended => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Whether the body may end here, where its connection has.
    #[must_use]
    pub fn may_end(&self) -> bool {
        matches!(self, Self::UntilClose) || self.has_ended()
    }

    /// Moves the data of `input` to its start.
    ///
    /// # Errors
    /// The chunks are not what RFC 9112 section 7.1 says, or carry more than they may.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, Fault> {
        match self {
            Self::Ended => Ok(Decoded { data: 0, used: 0 }),
            Self::UntilClose => Ok(Decoded { data: input.len(), used: input.len() }),
            Self::Length(left) => {
                let data = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
                *left -= data as u64;
                Ok(Decoded { data, used: data })
            }
            Self::Chunked(chunked) => chunked.decode(input),
        }
    }

    /// The trailers, once, when the body has ended.
    ///
    /// # Errors
    /// They are no fields.
    pub fn take_trailers(&mut self) -> Result<Option<HeaderMap>, Fault> {
        let Self::Chunked(chunked) = self else { return Ok(None) };
        let section = std::mem::take(&mut chunked.trailers);
        if chunked.state != State::Ended || section.is_empty() {
            return Ok(None);
        }
        fields(section).map(Some)
    }

    /// Whether there are trailers to be taken.
    #[must_use]
    pub fn has_trailers(&self) -> bool {
        matches!(self, Self::Chunked(chunked) if !chunked.trailers.is_empty())
    }
}

// === impl Chunked ===

impl Chunked {
    fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, Fault> {
        let (mut data, mut used) = (0, 0);
        while self.state != State::Ended {
            if let State::Data(left) = self.state {
                let here = input.len() - used;
                let piece = usize::try_from(left).map_or(here, |left| left.min(here));
                if piece == 0 {
                    break;
                }
                input.copy_within(used..used + piece, data);
                data += piece;
                used += piece;
                let left = left - piece as u64;
                self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                continue;
            }
            let Some(&byte) = input.get(used) else { break };
            self.state = self.step(byte)?;
            used += 1;
        }
        Ok(Decoded { data, used })
    }

    /// What follows this byte, which is no data.
    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (State::Size(size, digits), byte) if byte.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return Err(Fault::Chunk("a chunk's size has more than 16 digits"));
                }
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                State::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (State::Size(_, 0), _) => return Err(Fault::Chunk("a chunk has no size")),
            (State::Size(size, _) | State::Space(size), b' ' | b'\t') => {
                self.count(1)?;
                State::Space(size)
            }
            (State::Size(size, _) | State::Space(size), b';') => {
                State::Extension { size, quoted: false, escaped: false }
            }
            (State::Size(size, _) | State::Space(size), b'\r') => State::SizeLf(size),
            (State::Size(..) | State::Space(_), _) => {
                return Err(Fault::Chunk("a chunk's size is no hexadecimal number"));
            }
            (State::Extension { size, quoted, escaped }, byte) => {
                self.extension((size, quoted, escaped), byte)?
            }
            (State::SizeLf(0), b'\n') => State::Line,
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::SizeLf(_), _) => return Err(Fault::Chunk("a chunk's line ends in a bare CR")),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                self.extra = 0;
                State::Size(0, 0)
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(Fault::Chunk("a chunk's data is longer than its size"));
            }
            (State::Line, b'\r') => State::LastLf,
            // Others read on behind it, so that the body would end elsewhere for them.
            (State::Line | State::Field, b'\n') if self.trailers.last() != Some(&b'\r') => {
                return Err(Fault::Chunk("a trailer ends in a bare LF"));
            }
            // Nor is it waited for that more follows.
            (State::Field, byte) if byte != b'\n' && self.trailers.last() == Some(&b'\r') => {
                return Err(Fault::Chunk("a trailer has a bare CR"));
            }
            (State::Line | State::Field, byte) => {
                self.count(1)?;
                self.trailers.push(byte);
                if byte == b'\n' { State::Line } else { State::Field }
            }
            (State::LastLf, b'\n') => State::Ended,
            (State::LastLf, _) => return Err(Fault::Chunk("a trailer begins with a bare CR")),
            (State::Data(_) | State::Ended, _) => self.state,
        })
    }

    /// Quotes may hold what would end the extension otherwise, but no line end.
    fn extension(
        &mut self,
        (size, quoted, escaped): (u64, bool, bool),
        byte: u8,
    ) -> Result<State, Fault> {
        self.count(1)?;
        match byte {
            b'\n' => Err(Fault::Chunk("a chunk's extension holds a bare LF")),
            b'\r' if quoted => Err(Fault::Chunk("a chunk's extension is quoted without an end")),
            b'\r' => Ok(State::SizeLf(size)),
            b'"' if !escaped => Ok(State::Extension { size, quoted: !quoted, escaped: false }),
            _ => {
                Ok(State::Extension { size, quoted, escaped: quoted && !escaped && byte == b'\\' })
            }
        }
    }

    fn count(&mut self, bytes: usize) -> Result<(), Fault> {
        self.extra += bytes;
        if self.extra > MAX_EXTRA {
            return Err(Fault::Chunk(
                "a chunk's extensions, or the trailers, are larger than 16 KiB",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// What a decoder makes of this input, given in these pieces: the data, the trailers, the bytes that
    /// are left.
    fn decoded(
        mut decoder: Decoder,
        pieces: &[&[u8]],
    ) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Fault> {
        let (mut data, mut behind) = (Vec::new(), 0);
        for piece in pieces {
            let mut piece = piece.to_vec();
            let Decoded { data: length, used } = decoder.decode(&mut piece)?;
            assert!(used == piece.len() || decoder.has_ended(), "it takes all before its end");
            data.extend_from_slice(&piece[..length]);
            behind += piece.len() - used;
        }
        if !decoder.may_end() {
            return Err(Fault::Truncated);
        }
        Ok((data, decoder.take_trailers()?, behind))
    }

    /// In one piece, and split at every byte; all alike.
    fn at_every_split(input: &[u8]) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Fault> {
        let whole = decoded(Decoder::chunked(), &[input]);
        for at in 0..=input.len() {
            let (first, second) = input.split_at(at);
            let split = decoded(Decoder::chunked(), &[first, second]);
            assert_eq!(format!("{whole:?}"), format!("{split:?}"), "split at {at}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        let single = decoded(Decoder::chunked(), &bytes);
        assert_eq!(format!("{whole:?}"), format!("{single:?}"), "byte by byte");
        whole
    }

    #[test]
    fn chunks_of_one_read_become_one_piece_however_they_are_split() {
        for (input, data, behind) in [
            ("0\r\n\r\n", "", 0),
            ("5\r\nhello\r\n0\r\n\r\n", "hello", 0),
            ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", 0),
            ("00005\r\nhello\r\n000\r\n\r\n", "hello", 0),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", 0),
            ("3 \t\r\nabc\r\n0  \r\n\r\n", "abc", 0),
            ("3;a=b;c=\"d\\\";e\";f\r\nabc\r\n0;x\r\n\r\n", "abc", 0),
            ("3\r\n\r\n\r\r\n0\r\n\r\n", "\r\n\r", 0),
            ("0\r\n\r\nHTTP/1.1 200 OK\r\n", "", 17),
        ] {
            let (got, trailers, left) = at_every_split(input.as_bytes()).unwrap();
            assert_eq!((got.as_slice(), left), (data.as_bytes(), behind), "{input:?}");
            assert_eq!(trailers, None, "{input:?}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused_wherever_it_is_split() {
        for input in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            "0x1\r\na\r\n",
            " 1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "1\ra\r\n",
            "1;a\nb\r\n",
            "1;\"a\r\nb\r\n",
            "1 2\r\n",
            "00000000000000001\r\na\r\n",
            "10000000000000000\r\n",
            ";\r\n",
            "0\r\n\rx",
            "1\r\na\r\n\r\n",
            "0\r\n\n",
            "0\r\nx: 1\n\r\n",
            "0\r\nx: 1\r\n\n",
        ] {
            let refused = at_every_split(input.as_bytes()).unwrap_err();
            assert!(matches!(refused, Fault::Chunk(_)), "{input:?}: {refused:?}");
        }
        for cut in ["", "5", "5\r", "5\r\n", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "0\r\nx: y\r\n"]
        {
            let refused = at_every_split(cut.as_bytes()).unwrap_err();
            assert!(matches!(refused, Fault::Truncated), "{cut:?}: {refused:?}");
        }
    }

    #[test]
    fn trailers_are_fields_and_bounded() {
        let (data, trailers, behind) =
            at_every_split(b"3\r\nabc\r\n0\r\nX-Sum: 7\r\nx-b:  c d \r\n\r\nrest").unwrap();
        let trailers = trailers.unwrap();
        assert_eq!((data.as_slice(), behind, trailers.len()), (&b"abc"[..], 4, 2));
        assert_eq!(trailers["x-sum"], HeaderValue::from_static("7"));
        assert_eq!(trailers["x-b"], HeaderValue::from_static("c d"));
        for trailers in ["no field\r\n", " x: y\r\n", "x: y\r\n z\r\n", "x y: z\r\n", "x: \0\r\n"] {
            let input = format!("0\r\n{trailers}\r\n");
            assert!(at_every_split(input.as_bytes()).is_err(), "{trailers:?}");
        }
        // At once, before its end has come.
        for begun in ["0\r\nx: y\r\r\n", "0\r\nx: y\rz", "0\r\nx: y\n", "0\r\n\rx"] {
            let read = decoded(Decoder::chunked(), &[begun.as_bytes()]);
            assert!(matches!(read, Err(Fault::Chunk(_))), "{begun:?}");
        }
        let long = format!("0\r\nx: {}\r\n\r\n", "y".repeat(MAX_EXTRA));
        assert!(matches!(decoded(Decoder::chunked(), &[long.as_bytes()]), Err(Fault::Chunk(_))));
        let long = format!("1;{}\r\na\r\n", "x".repeat(MAX_EXTRA));
        assert!(matches!(decoded(Decoder::chunked(), &[long.as_bytes()]), Err(Fault::Chunk(_))));
        // An event stream that lasts for days has one chunk for each event.
        for each in ["1  \r\na\r\n", "1;a=b\r\na\r\n"] {
            let many = each.repeat(MAX_EXTRA) + "0\r\n\r\n";
            let (data, ..) = decoded(Decoder::chunked(), &[many.as_bytes()]).unwrap();
            assert_eq!(data.len(), MAX_EXTRA, "{each:?}");
        }
    }

    #[test]
    fn a_length_and_a_close_end_a_body() {
        let (data, _, behind) = decoded(Decoder::length(3), &[b"ab", b"cd"]).unwrap();
        assert_eq!((data.as_slice(), behind), (&b"abc"[..], 1));
        assert!(matches!(decoded(Decoder::length(3), &[b"ab"]), Err(Fault::Truncated)));
        let (data, _, behind) = decoded(Decoder::UntilClose, &[b"ab", b"cd"]).unwrap();
        assert_eq!((data.as_slice(), behind), (&b"abcd"[..], 0));
        let (data, _, behind) = decoded(Decoder::length(0), &[b"ab"]).unwrap();
        assert_eq!((data.as_slice(), behind), (&b""[..], 2));
        assert_eq!(Decoder::length(u64::MAX).left(), Some(u64::MAX));
    }

    proptest! {
        /// Whatever comes, it ends, takes no more than it was given, and splits make no difference.
        #[test]
        fn any_input_ends(input in "([0-9a-f]{0,3}(;[a-z\"]{0,3})?\r\n?[a-z\r\n]{0,20}){0,6}") {
            let _seen = at_every_split(input.as_bytes());
        }

        #[test]
        fn chunks_come_back_as_they_were_sent(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8)
        ) {
            let mut input = Vec::new();
            for chunk in &chunks {
                input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                input.extend_from_slice(chunk);
                input.extend_from_slice(b"\r\n");
            }
            input.extend_from_slice(b"0\r\n\r\n");
            let (data, trailers, behind) = at_every_split(&input).unwrap();
            prop_assert_eq!((data, trailers, behind), (chunks.concat(), None, 0));
        }
    }
}
