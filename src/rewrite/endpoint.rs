//! The `endpoint` event of MCP's legacy HTTP+SSE transport (MCP 2024-11-05, "HTTP with SSE"): its URL is
//! changed where the caller says so, or the client posts around the proxy.
//!
//! The first event of that name is meant, whatever stands before it: a retry time, an id, comments, other
//! events, a byte order mark. Lines pass when they are whole, but from its name or its first `data` line
//! on an event is held until it is whole, for its name may stand last: a client acts on whole events, so
//! nothing is late. A message in JSON passes as it comes. Lines are read as WHATWG
//! HTML section 9.2.6 has it. Knows bytes.

use std::ops::Range;

/// Bytes of an event that are held; a longer one is no `endpoint` event.
const MAX_EVENT: usize = 16 * 1024;
/// Bytes before the `endpoint` event, comments aside; behind them there is none.
const MAX_BEFORE: usize = 64 * 1024;

/// What the URL becomes; `None` leaves it as it is.
pub type Map<'m> = dyn Fn(&[u8]) -> Option<Vec<u8>> + 'm;

/// What becomes of the bytes handed in.
#[derive(Debug, PartialEq, Eq)]
pub enum HeldEvent {
    /// These go out; the event is still to come or not whole.
    Wait(Vec<u8>),
    /// These go out, and all that follow as they are.
    Release(Vec<u8>),
}

/// Finds a stream's `endpoint` event.
#[derive(Debug, Default)]
pub struct EndpointEvent {
    /// What has not gone out: lines of an event that may be the one, and the line under way.
    held: Vec<u8>,
    /// Where in it the line under way begins.
    line: usize,
    /// The first line is behind us, and a byte order mark with it.
    has_begun: bool,
    /// A CR ended the last line; a LF that follows belongs to it.
    after_cr: bool,
    /// The line under way has gone out in part.
    is_cut: bool,
    event: Event,
    /// Bytes of fields that have been seen.
    before: usize,
}

/// The event under way.
#[derive(Debug, Default)]
struct Event {
    is_endpoint: bool,
    /// The values of its `data` fields in what is held.
    data: Vec<Range<usize>>,
    /// It cannot be the one: the rest of it goes out as it comes.
    passes: bool,
}

// === impl EndpointEvent ===

impl EndpointEvent {
    /// Takes the next bytes; `map` gets the URL as it stands in the event, several `data` lines joined
    /// by LF.
    pub fn feed(&mut self, bytes: &[u8], map: &Map<'_>) -> HeldEvent {
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(text) = self.next_line() {
            if !text.is_empty() || self.is_cut {
                self.see_line(text);
                continue;
            }
            let event = std::mem::take(&mut self.event);
            let found = event.is_endpoint && !event.passes && !event.data.is_empty();
            let ended = self.take_to(self.line);
            match found.then(|| rewrite(&ended, &event.data, map)).flatten() {
                Some(rewritten) => out.extend(rewritten),
                None => out.extend(ended),
            }
            if found || self.before > MAX_BEFORE {
                out.extend(self.release());
                return HeldEvent::Release(out);
            }
        }
        self.before_the_line_s_end();
        let passed = self.passed();
        out.extend(self.take_to(passed));
        if self.before > MAX_BEFORE {
            out.extend(self.release());
            return HeldEvent::Release(out);
        }
        HeldEvent::Wait(out)
    }

    /// Whether bytes wait for more.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// What is held when the stream ends.
    pub fn release(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// The next whole line, without its end; the line under way begins behind it.
    fn next_line(&mut self) -> Option<Range<usize>> {
        if self.after_cr && self.held.get(self.line) == Some(&b'\n') {
            self.line += 1;
            self.after_cr = false;
        }
        let rest = self.held.get(self.line..)?;
        self.after_cr &= rest.is_empty();
        let length = memchr::memchr2(b'\n', b'\r', rest)?;
        self.after_cr = rest.get(length) == Some(&b'\r');
        let start = self.line;
        self.line += length + 1;
        let mut text = start..start + length;
        if !std::mem::replace(&mut self.has_begun, true) && !self.is_cut {
            text.start += mark(rest);
        }
        Some(text)
    }

    /// Takes note of a whole line.
    fn see_line(&mut self, text: Range<usize>) {
        let line = self.held.get(text.clone()).unwrap_or_default();
        let is_cut = std::mem::take(&mut self.is_cut);
        if is_cut || line.first() == Some(&b':') {
            return;
        }
        self.before += line.len();
        if let Some(name) = field(line, b"event") {
            // go-sdk trims names.
            self.event.is_endpoint = name.trim_ascii() == b"endpoint";
        }
        if let Some(value) = field(line, b"data") {
            self.event.passes |= self.event.data.is_empty() && is_json(value);
            let value = text.end - value.len()..text.end;
            self.event.data.push(value);
        }
    }

    /// Looks at the line under way: whether it, or what is held before it, makes the event pass.
    fn before_the_line_s_end(&mut self) {
        let line = self.held.get(self.line..).unwrap_or_default();
        let is_first = self.event.data.is_empty();
        let data = field(line, b"data").filter(|_| is_first && !self.is_cut);
        let held = self.held.len() - self.whole_lines_passed();
        self.event.passes |= data.is_some_and(is_json) || held > MAX_EVENT;
    }

    /// Bytes of whole lines that need not be held: nothing says yet that it may be the one.
    fn whole_lines_passed(&self) -> usize {
        let may_be = self.event.is_endpoint || !self.event.data.is_empty();
        if may_be { 0 } else { self.line }
    }

    /// How many of the held bytes go out now.
    fn passed(&mut self) -> usize {
        if self.event.passes {
            let line = self.held.len().saturating_sub(self.line);
            self.before += line;
            self.is_cut |= line > 0;
            self.event.data.clear();
            return self.held.len();
        }
        self.whole_lines_passed()
    }

    fn take_to(&mut self, at: usize) -> Vec<u8> {
        let rest = self.held.split_off(at.min(self.held.len()));
        self.line = self.line.saturating_sub(at);
        std::mem::replace(&mut self.held, rest)
    }
}

/// The event with its URL changed; `None` if it stays.
fn rewrite(event: &[u8], data: &[Range<usize>], map: &Map<'_>) -> Option<Vec<u8>> {
    let values: Vec<_> = data.iter().filter_map(|value| event.get(value.clone())).collect();
    let mut url = map(&values.join(&b'\n'))?;
    url.retain(|byte| !matches!(byte, b'\n' | b'\r'));
    let (first, others) = data.split_first()?;
    let mut out = [event.get(..first.start)?, &url].concat();
    let mut at = first.end;
    for value in others {
        // The whole line goes, with the end of the line before it in place of its own.
        let between = event.get(at..value.start)?;
        let end = between.iter().rposition(|byte| matches!(byte, b'\n' | b'\r'))?;
        let kept = between.get(..end)?;
        let is_crlf = between.get(end) == Some(&b'\n') && kept.ends_with(b"\r");
        out.extend_from_slice(if is_crlf { kept.strip_suffix(b"\r")? } else { kept });
        at = value.end;
    }
    out.extend_from_slice(event.get(at..)?);
    Some(out)
}

/// The value of a field of this name, without the one space that may precede it; empty without a colon.
fn field<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(name)?;
    if rest.is_empty() {
        return Some(rest);
    }
    let value = rest.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Whether a value begins as a JSON-RPC message does, and as no URL does.
fn is_json(value: &[u8]) -> bool {
    matches!(value.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// The length of the byte order mark at the beginning of a line.
fn mark(line: &[u8]) -> usize {
    if line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

#[cfg(test)]
mod tests;
