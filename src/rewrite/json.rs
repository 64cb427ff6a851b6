//! Walks a JSON text (RFC 8259) and says where its parts stand, so that one can be replaced and every
//! other byte stays.
//!
//! Reads what any reader of JSON takes: half surrogate pairs, bytes that are no UTF-8, numbers of any
//! size, `NaN`, a byte order mark in front, anything behind the end. It is strict where the places of
//! the parts depend on it. It nests as deep as it likes, for nothing here recurses. Knows no field.

use std::ops::Range;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// What a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `{}`
    Object,
    /// `[]`
    Array,
}

/// One part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A container begins.
    Begin,
    /// The innermost container ends.
    End,
    /// The name of a member, between its quotes.
    Name(Range<usize>),
    /// A string, between its quotes.
    Text(Range<usize>),
    /// A number or a word.
    Other,
}

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at} is not what JSON has there")]
pub struct Malformed {
    /// Where, in bytes from 0.
    pub at: usize,
}

/// Goes through a text.
#[derive(Debug)]
pub struct Walk<'j> {
    text: &'j [u8],
    at: usize,
    open: Vec<Container>,
    next: Next,
    comma: usize,
}

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Value,
    /// In an array that has just begun.
    ValueOrEnd,
    Name,
    /// In an object that has just begun.
    NameOrEnd,
    CommaOrEnd,
    Nothing,
}

// === impl Walk ===

impl<'j> Walk<'j> {
    /// Begins at the first byte, or behind a byte order mark.
    #[must_use]
    pub fn new(text: &'j [u8]) -> Self {
        let at = if text.starts_with(MARK) { MARK.len() } else { 0 };
        Self { text, at, open: Vec::new(), next: Next::Value, comma: at }
    }

    /// Where the last part ends: one byte behind it, its quotes included.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// The containers that are open, outermost first.
    #[must_use]
    pub fn open(&self) -> &[Container] {
        &self.open
    }

    /// Where the last comma between two values stands.
    #[must_use]
    pub fn comma(&self) -> usize {
        self.comma
    }

    /// The next part; `None` behind the value that the text is.
    ///
    /// # Errors
    /// [`Malformed`], once the text turns out not to be JSON.
    pub fn next_part(&mut self) -> Result<Option<Part>, Malformed> {
        if self.next == Next::Nothing {
            return Ok(None);
        }
        let mut byte = self.peek()?;
        if self.next == Next::CommaOrEnd && byte == b',' {
            self.comma = self.at;
            self.at += 1;
            let object = self.open.last() == Some(&Container::Object);
            self.next = if object { Next::Name } else { Next::Value };
            byte = self.peek()?;
        }
        match (self.next, byte) {
            (Next::ValueOrEnd | Next::NameOrEnd | Next::CommaOrEnd, b'}' | b']') => self.end(byte),
            (Next::Name | Next::NameOrEnd, b'"') => {
                let name = self.string()?;
                if self.peek()? != b':' {
                    return Err(self.malformed());
                }
                self.at += 1;
                self.next = Next::Value;
                Ok(Some(Part::Name(name)))
            }
            (Next::Value | Next::ValueOrEnd, _) => self.value(byte).map(Some),
            _ => Err(self.malformed()),
        }
    }

    fn value(&mut self, byte: u8) -> Result<Part, Malformed> {
        let begin = match byte {
            b'{' => (Container::Object, Next::NameOrEnd),
            b'[' => (Container::Array, Next::ValueOrEnd),
            b'"' => {
                let text = self.string()?;
                self.after_value();
                return Ok(Part::Text(text));
            }
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let word = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                let length = rest.iter().take_while(word).count();
                if length == 0 {
                    return Err(self.malformed());
                }
                self.at += length;
                self.after_value();
                return Ok(Part::Other);
            }
        };
        self.at += 1;
        self.open.push(begin.0);
        self.next = begin.1;
        Ok(Part::Begin)
    }

    fn end(&mut self, byte: u8) -> Result<Option<Part>, Malformed> {
        let ends = if byte == b'}' { Container::Object } else { Container::Array };
        if self.open.last() != Some(&ends) {
            return Err(self.malformed());
        }
        self.open.pop();
        self.at += 1;
        self.after_value();
        Ok(Some(Part::End))
    }

    fn after_value(&mut self) {
        self.next = if self.open.is_empty() { Next::Nothing } else { Next::CommaOrEnd };
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, Malformed> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let space = rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.at += space;
        self.text.get(self.at).copied().ok_or_else(|| self.malformed())
    }

    /// A string from its first quote on; the place behind the quotes is taken.
    fn string(&mut self) -> Result<Range<usize>, Malformed> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            let rest = self.text.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
                return Err(Malformed { at: self.text.len() });
            };
            at += found;
            if self.text.get(at) == Some(&b'"') {
                self.at = at + 1;
                return Ok(start..at);
            }
            at += 2;
        }
    }

    fn malformed(&self) -> Malformed {
        Malformed { at: self.at }
    }
}

/// A string without its escapes (RFC 8259 section 7).
#[derive(Debug, PartialEq, Eq)]
pub struct Unescaped {
    /// What it says. Half a surrogate pair becomes U+FFFD, as most readers have it.
    pub text: Vec<u8>,
    /// For each byte of the text, and for its end, where it stands between the quotes.
    places: Vec<usize>,
}

// === impl Unescaped ===

impl Unescaped {
    /// Reads what stands between the quotes; `None` if an escape is none.
    #[must_use]
    pub fn read(raw: &[u8]) -> Option<Self> {
        let mut read = Self { text: Vec::new(), places: Vec::new() };
        let mut at = 0;
        while let Some(&byte) = raw.get(at) {
            let mut bytes = [0; 4];
            let (said, length) = match byte {
                b'\\' => {
                    let (said, length) = escape(raw.get(at..)?)?;
                    (said.encode_utf8(&mut bytes).as_bytes(), length)
                }
                _ => (std::slice::from_ref(&byte), 1),
            };
            read.text.extend_from_slice(said);
            read.places.resize(read.text.len(), at);
            at += length;
        }
        read.places.push(at);
        Some(read)
    }

    /// Where a byte of the text stands between the quotes, in bytes.
    #[must_use]
    pub fn place(&self, at: usize) -> Option<usize> {
        self.places.get(at).copied()
    }
}

/// What an escape says, and how long it is.
fn escape(raw: &[u8]) -> Option<(char, usize)> {
    let said = match raw.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = hex(raw)?;
            let second = raw.get(6..).and_then(hex).filter(|low| (0xdc00..0xe000).contains(low));
            return Some(match (first, second) {
                (0xd800..0xdc00, Some(low)) => {
                    let code = 0x1_0000 + ((first - 0xd800) << 10) + (low - 0xdc00);
                    (char::from_u32(code)?, 12)
                }
                _ => (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), 6),
            });
        }
        _ => return None,
    };
    Some((said, 2))
}

/// The four digits of `\u0041`.
fn hex(raw: &[u8]) -> Option<u32> {
    let digits = raw.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests;
