//! Shows what the events of a `text/event-stream` carry (WHATWG HTML, section 9.2.6), across any split of its bytes.
//!
//! Keeps a few bytes of state and none of the stream's: whoever wants the data whole gathers it. Knows no field but
//! `data`. Data is shown before its event has ended, so that a message counts although its event is cut off and no
//! client reads it. Where each event is a message, the places of one are found as in a body that is one.

use memchr::memmem::Finder;

use super::places::{Found, Places};
use super::sse::Start;

/// Byte strings of which each message that has one of certain keys holds at least one. A line break cannot part them,
/// for no string of JSON has one.
#[derive(Debug)]
pub struct Signs(Vec<Finder<'static>>);

/// A body that is a message in JSON, or an event stream of them.
#[derive(Debug)]
pub struct Messages<P> {
    places: Places<P>,
    /// Of an event stream.
    events: Option<EventData>,
}

/// Where in an event stream.
#[derive(Debug, Default)]
pub struct EventData {
    start: Start,
    line: Line,
    /// The last line ended by a CR, which a LF may complete.
    cr: bool,
    /// A line of an event lies behind, or a part of one.
    inside: bool,
    /// It has a line of data, behind which a line break comes before the next one.
    has_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the field's name; so many bytes of `data:` have come.
    Name(usize),
    Data,
    Other,
}

// === impl Signs ===

impl Signs {
    /// Of these keys, and of what can write a letter of a key in another way.
    #[must_use]
    pub fn of_keys(keys: &[&str]) -> Self {
        let keys = keys.iter().map(|key| format!("\"{key}\""));
        let signs = keys.chain(["\\u".to_owned()]);
        Self(signs.map(|sign| Finder::new(&sign).into_owned()).collect())
    }
}

// === impl Messages ===

impl<P: Copy> Messages<P> {
    /// Nothing has come yet of a message with these places, or of a stream of `events` that are such messages.
    #[must_use]
    pub fn new(places: Places<P>, events: bool) -> Self {
        Self { places, events: events.then(EventData::default) }
    }

    /// Takes the next bytes, and shows what they complete.
    pub fn feed(&mut self, bytes: &[u8], found: &mut impl FnMut(P, Found<'_>)) {
        let Self { places, events } = self;
        match events {
            None => places.feed(bytes, found),
            Some(events) => events.feed(bytes, |data| match data {
                Some(data) => places.feed(data, found),
                None => places.restart(),
            }),
        }
    }

    /// Whether the next bytes are whole events of a stream, behind whole ones, and none of them has one of these signs.
    /// Who looks for messages that do may leave them out.
    #[must_use]
    pub fn are_without(&self, signs: &Signs, bytes: &[u8]) -> bool {
        let ends = bytes.ends_with(b"\n\n") || bytes.ends_with(b"\r\n\r\n");
        ends && self.events.as_ref().is_some_and(EventData::is_between)
            && signs.0.iter().all(|sign| sign.find(bytes).is_none())
    }

    /// Whether no message can follow.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.events.is_none() && self.places.is_ended()
    }
}

// === impl EventData ===

impl Default for Line {
    fn default() -> Self {
        Self::Name(0)
    }
}

impl EventData {
    /// Shows the bytes of `data` fields, and `None` for the end of an event.
    pub fn feed(&mut self, mut bytes: &[u8], mut show: impl FnMut(Option<&[u8]>)) {
        bytes = self.start.skip(bytes, || self.line = Line::Other);
        while let Some((&first, rest)) = bytes.split_first() {
            if std::mem::take(&mut self.cr) && first == b'\n' {
                bytes = rest;
                continue;
            }
            let end = memchr::memchr2(b'\n', b'\r', bytes);
            let (line, ending) = bytes.split_at(end.unwrap_or(bytes.len()));
            self.inside = true;
            let begun = self.line == Line::Data;
            let data = self.data(line);
            if !begun && self.line == Line::Data && std::mem::replace(&mut self.has_data, true) {
                show(Some(b"\n"));
            }
            if let Some(data) = data {
                show(Some(data));
            }
            let Some((&last, rest)) = ending.split_first() else { return };
            if self.line == Line::default() {
                (self.inside, self.has_data) = (false, false);
                show(None);
            }
            (self.line, self.cr) = (Line::default(), last == b'\r');
            bytes = rest;
        }
    }

    /// Whether events may be left out here. Not at the stream's start, whose mark has to be seen.
    fn is_between(&self) -> bool {
        !self.inside && !self.cr && self.start.is_over()
    }

    /// What of these bytes of a line is data.
    fn data<'b>(&mut self, mut bytes: &'b [u8]) -> Option<&'b [u8]> {
        const NAME: &[u8] = b"data:";
        while let (Line::Name(seen), Some((byte, rest))) = (self.line, bytes.split_first()) {
            bytes = rest;
            self.line = match NAME.get(seen) {
                Some(next) if next == byte && seen + 1 == NAME.len() => Line::Data,
                Some(next) if next == byte => Line::Name(seen + 1),
                _ => Line::Other,
            };
        }
        (self.line == Line::Data && !bytes.is_empty()).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of each event, a stroke behind each piece that is shown in one.
    fn read(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut all, mut event) = (EventData::default(), Vec::new(), Vec::new());
        for piece in pieces {
            lines.feed(piece, |data| match data {
                Some(data) => event.extend_from_slice(data),
                None => all.push(String::from_utf8(std::mem::take(&mut event)).unwrap()),
            });
        }
        all
    }

    #[test]
    fn the_data_of_each_event_is_shown_at_every_split() {
        let cases: &[(&str, &[&str])] = &[
            ("data: {}\n\n", &[" {}"]),
            ("data:{}\r\n\r\nid: 1\rdata:2\r\r", &["{}", "2"]),
            ("event: message\ndata:{\ndata:}\n\n", &["{\n}"]),
            ("data\ndatax:1\n:data:2\n data:3\n\n", &[""]),
            ("data:1\n", &[]),
            ("\u{feff}data:1\n\n\u{feff}data:2\n\n", &["1", ""]),
            ("\u{feff}\n\u{feff}\u{feff}", &[""]),
            ("\u{feff}\u{feff}data:1\n\n", &[""]),
            ("\u{fefe}data:1\n\n", &[""]),
            ("\n\n", &["", ""]),
        ];
        for (stream, expected) in cases {
            let bytes = stream.as_bytes();
            for at in 0..=bytes.len() {
                for to in at..=bytes.len() {
                    let found = read(&[&bytes[..at], &bytes[at..to], &bytes[to..]]);
                    assert_eq!(found, *expected, "{stream:?} split at {at}, {to}");
                }
            }
        }
    }
}
