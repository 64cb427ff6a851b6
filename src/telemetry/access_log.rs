//! One structured line for each finished request, on the log target `access`.
//!
//! Lines are formatted here, each thread in a buffer of its own, because a line through the general log
//! costs as much as relaying a request. Fields are fixed. Knows nothing of how a request came to its
//! end, nor of who reads the lines.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use super::log::Log;
use super::record::Record;
use crate::config::LogFormat;

/// Takes lines from any thread.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<(LogFormat, Log)>);

/// What a thread formats its lines in.
#[derive(Debug, Default)]
struct Sheet {
    line: Vec<u8>,
    stamp: Stamp,
}

/// The time in text; all lines of a second share most of it.
#[derive(Debug, Default)]
struct Stamp {
    second: Option<u64>,
    /// Up to the second, and the point.
    text: String,
}

thread_local! {
    static SHEET: RefCell<Sheet> = RefCell::default();
}

// === impl AccessLog ===

impl AccessLog {
    /// A log that takes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Lines in this format, among the others of `log`.
    #[must_use]
    pub fn new(format: LogFormat, log: Log) -> Self {
        Self(Some((format, log)))
    }

    /// Writes the line of a request, unless the log's filter has the target `access` off. Never waits for a
    /// reader.
    pub fn finish(&self, record: &Record<'_>) {
        let Some((format, log)) = &self.0 else { return };
        if tracing::enabled!(target: "access", tracing::Level::INFO) {
            // Only a thread that ends has none any more.
            let _nothing_to_say = SHEET.try_with(|sheet| {
                if let Ok(mut sheet) = sheet.try_borrow_mut() {
                    log.push(sheet.format(*format, record, SystemTime::now()));
                }
            });
        }
    }
}

// === impl Sheet ===

impl Sheet {
    fn format(&mut self, format: LogFormat, record: &Record<'_>, now: SystemTime) -> &[u8] {
        let Self { line: out, stamp } = self;
        out.clear();
        // Writing into a vector does not fail.
        let _infallible = match format {
            LogFormat::Json => record.json(out, stamp.at(now)),
            LogFormat::Text => record.text(out, stamp.at(now)),
        };
        out
    }
}

// === impl Stamp ===

impl Stamp {
    /// Text up to the point, and the microseconds behind it.
    fn at(&mut self, now: SystemTime) -> (&str, u32) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.text = humantime::format_rfc3339_seconds(now).to_string();
            self.text.pop();
            self.text.push('.');
        }
        (&self.text, since.subsec_micros())
    }
}

// === impl Record ===

impl Record<'_> {
    fn texts(&self) -> [(&'static str, &str); 7] {
        [
            ("method", self.method),
            ("path", self.path),
            ("host", self.target),
            ("route", self.route),
            ("class", self.class),
            ("outcome", self.outcome.detail()),
            ("traceparent", self.traceparent),
        ]
    }

    fn times(&self) -> [(&'static str, Option<Duration>); 4] {
        [
            ("connect_ms", self.connect),
            ("response_headers_ms", self.response_headers),
            ("first_ms", self.first),
            ("whole_ms", Some(self.whole)),
        ]
    }

    fn counts(&self) -> [(&'static str, u64); 4] {
        [
            ("status", u64::from(self.status)),
            ("bytes", self.bytes),
            ("events", self.events),
            ("request_bytes", self.request_bytes),
        ]
    }

    /// One object, with the members that every line of the log has.
    fn json(&self, out: &mut Vec<u8>, (second, micros): (&str, u32)) -> std::io::Result<()> {
        out.extend_from_slice(br#"{"timestamp":""#);
        out.extend_from_slice(second.as_bytes());
        fraction(out, micros, 100_000);
        out.extend_from_slice(br#"Z","level":"INFO","target":"access","peer":""#);
        out.extend_from_slice(self.peer.as_bytes());
        out.push(b'"');
        for (name, value) in self.texts() {
            member(out, name);
            serde_json::to_writer(&mut *out, value)?;
        }
        for (name, value) in self.counts() {
            member(out, name);
            serde_json::to_writer(&mut *out, &value)?;
        }
        for (name, value) in self.times() {
            if let Some(time) = value {
                member(out, name);
                milliseconds(out, time)?;
            }
        }
        if let Some(session) = self.session {
            write!(out, r#","session":"{session:08x}","session_event":"{}""#, self.care)?;
        }
        out.write_all(b"}\n")
    }

    /// The same for people: texts in quotes, so that nothing in a path can look like a field.
    fn text(&self, out: &mut Vec<u8>, (second, micros): (&str, u32)) -> std::io::Result<()> {
        write!(out, "{second}{micros:06}Z  INFO access: peer={}", self.peer)?;
        for (name, value) in self.texts() {
            write!(out, " {name}={value:?}")?;
        }
        for (name, value) in self.counts() {
            write!(out, " {name}={value}")?;
        }
        for (name, value) in self.times() {
            if let Some(time) = value {
                write!(out, " {name}=")?;
                milliseconds(out, time)?;
            }
        }
        if let Some(session) = self.session {
            write!(out, " session={session:08x} session_event={:?}", self.care)?;
        }
        out.write_all(b"\n")
    }
}

/// Starts a member that is not the first; without the formatter, which costs more than the bytes.
fn member(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Milliseconds with their thousandths.
fn milliseconds(out: &mut Vec<u8>, time: Duration) -> std::io::Result<()> {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    serde_json::to_writer(&mut *out, &millis)?;
    out.push(b'.');
    fraction(out, time.subsec_micros(), 100);
    Ok(())
}

/// The digits of a fraction from this unit on.
fn fraction(out: &mut Vec<u8>, number: u32, mut unit: u32) {
    while unit > 0 {
        let digit = u8::try_from(number / unit % 10).unwrap_or_default();
        out.push(b'0' + digit);
        unit /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::Outcome;

    fn line() -> Record<'static> {
        Record {
            peer: "127.0.0.1:80",
            method: "POST",
            path: "/mcp\"\n",
            target: "a.ns",
            route: "a.ns",
            class: "stream",
            status: 200,
            outcome: Outcome::Complete,
            is_stream: true,
            session: None,
            care: "",
            traceparent: "",
            bytes: 9,
            events: 2,
            request_bytes: 3,
            connect: None,
            response_headers: Some(Duration::from_micros(1_050)),
            first: None,
            whole: Duration::from_secs(2),
        }
    }

    #[test]
    fn a_json_line_is_one_object_with_every_field() {
        let mut out = Vec::new();
        line().json(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH)).unwrap();
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00.000000Z", "level": "INFO", "target": "access",
            "peer": "127.0.0.1:80", "method": "POST", "path": "/mcp\"\n", "host": "a.ns",
            "route": "a.ns", "class": "stream", "outcome": "complete", "traceparent": "",
            "status": 200, "bytes": 9, "events": 2, "request_bytes": 3, "response_headers_ms": 1.05,
            "whole_ms": 2000.0,
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn the_time_goes_on_within_a_second_and_beyond() {
        let mut stamp = Stamp::default();
        for micros in [0, 1, 20_300, 999_999, 1_000_000, 86_400_000_001] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_micros(micros);
            let mut out = Vec::new();
            line().text(&mut out, stamp.at(now)).unwrap();
            let expected = humantime::format_rfc3339_micros(now).to_string();
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(&format!("{expected}  INFO ")), "{text}");
        }
    }

    #[test]
    fn a_text_line_is_one_line_whatever_the_path_holds() {
        let mut out = Vec::new();
        line().text(&mut out, Stamp::default().at(SystemTime::UNIX_EPOCH)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains(r#" path="/mcp\"\n" host="a.ns" "#), "{text}");
        assert!(text.ends_with(" response_headers_ms=1.050 whole_ms=2000.000\n"), "{text}");
    }

    #[test]
    fn a_sheet_holds_one_line_at_a_time() {
        let mut sheet = Sheet::default();
        for format in [LogFormat::Json, LogFormat::Text, LogFormat::Json] {
            let mut alone = Sheet::default();
            let expected = alone.format(format, &line(), SystemTime::UNIX_EPOCH).to_vec();
            assert_eq!(sheet.format(format, &line(), SystemTime::UNIX_EPOCH), expected);
        }
    }
}
