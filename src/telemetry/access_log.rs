//! One structured line for each finished exchange, on the log target `access`.
//!
//! Lines are formatted here and handed to a thread that writes them, because a line through the general
//! log costs as much as relaying a request. Fields are fixed. Knows nothing of how an exchange came to
//! its end; `proxy/exchange.rs` fills the [`Line`].

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::config::LogFormat;

/// Lines gather this long before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that may wait for a reader that does not read; further lines are dropped and counted.
const MAX_WAITING: usize = 8 * 1024 * 1024;

/// What one finished exchange was.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The client's address.
    pub peer: &'a str,
    /// Request method.
    pub method: &'a str,
    /// Request path, without its query: queries may carry session ids.
    pub path: &'a str,
    /// `x-kagent-host` as sent, if it was readable.
    pub target: &'a str,
    /// Route taken, empty if none.
    pub route: &'a str,
    /// Kind of call.
    pub class: &'a str,
    /// Status answered; 0 when there was no answer.
    pub status: u16,
    /// How it ended.
    pub outcome: &'a str,
    /// `traceparent` as sent (W3C Trace Context).
    pub traceparent: &'a str,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Events of an event stream that passed whole.
    pub events: u64,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// To the connection that carried it.
    pub connect: Option<Duration>,
    /// To the answer's head.
    pub head: Option<Duration>,
    /// To the first body bytes, of an event stream to the end of its first event.
    pub first: Option<Duration>,
    /// To the end.
    pub whole: Duration,
}

/// Takes lines from any thread; the last handle's drop writes what is left.
#[derive(Clone, Debug)]
pub struct AccessLog(Option<Arc<Writer>>);

#[derive(Debug)]
struct Writer {
    format: LogFormat,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    stamp: Stamp,
    dropped: u64,
    closed: bool,
}

/// The time in text; all lines of a second share most of it.
#[derive(Debug, Default)]
struct Stamp {
    second: Option<u64>,
    /// Up to the second, and the point.
    text: String,
}

// === impl AccessLog ===

impl AccessLog {
    /// A log that takes nothing.
    #[must_use]
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts the thread that writes to `output`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(format: LogFormat, output: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || for_thread.write_all(output))?;
        Ok(Self(Some(Arc::new(Writer { format, shared, thread: Some(thread) }))))
    }

    /// Takes a line, unless the log's filter has the target `access` off.
    pub fn write(&self, line: &Line<'_>) {
        let Some(writer) = &self.0 else { return };
        if tracing::enabled!(target: "access", tracing::Level::INFO) {
            writer.take(line, SystemTime::now());
        }
    }
}

// === impl Writer ===

impl Writer {
    fn take(&self, line: &Line<'_>, now: SystemTime) {
        let mut waiting = self.shared.lock();
        if waiting.lines.len() > MAX_WAITING {
            waiting.dropped += 1;
            return;
        }
        let Waiting { lines, stamp, .. } = &mut *waiting;
        let was_empty = lines.is_empty();
        // Writing into a vector does not fail.
        let _infallible = match self.format {
            LogFormat::Json => line.json(lines, stamp.at(now)),
            LogFormat::Text => line.text(lines, stamp.at(now)),
        };
        drop(waiting);
        if was_empty {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _it_only_writes = thread.join();
        }
    }
}

// === impl Shared ===

impl Shared {
    fn write_all(&self, mut output: impl Write) {
        let mut lines = Vec::new();
        loop {
            let mut waiting = self.lock();
            while waiting.lines.is_empty() && !waiting.closed {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            let (closed, dropped) = (waiting.closed, std::mem::take(&mut waiting.dropped));
            std::mem::swap(&mut lines, &mut waiting.lines);
            drop(waiting);
            // A reader that is gone must not end the program.
            let _nobody_reads = output.write_all(&lines).and_then(|()| output.flush());
            lines.clear();
            if dropped > 0 {
                tracing::warn!(dropped, "access lines were dropped, nobody read them");
            }
            if closed {
                return;
            }
            std::thread::sleep(GATHER);
        }
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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

// === impl Line ===

impl Line<'_> {
    fn texts(&self) -> [(&'static str, &str); 7] {
        [
            ("method", self.method),
            ("path", self.path),
            ("host", self.target),
            ("route", self.route),
            ("class", self.class),
            ("outcome", self.outcome),
            ("traceparent", self.traceparent),
        ]
    }

    fn times(&self) -> [(&'static str, Option<Duration>); 4] {
        [
            ("connect_ms", self.connect),
            ("head_ms", self.head),
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

    fn line() -> Line<'static> {
        Line {
            peer: "127.0.0.1:80",
            method: "POST",
            path: "/mcp\"\n",
            target: "a.ns",
            route: "a.ns",
            class: "stream",
            status: 200,
            outcome: "complete",
            traceparent: "",
            bytes: 9,
            events: 2,
            request_bytes: 3,
            connect: None,
            head: Some(Duration::from_micros(1_050)),
            first: None,
            whole: Duration::from_secs(2),
        }
    }

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
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
            "status": 200, "bytes": 9, "events": 2, "request_bytes": 3, "head_ms": 1.05,
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
        assert!(text.ends_with(" head_ms=1.050 whole_ms=2000.000\n"), "{text}");
    }

    #[test]
    fn what_was_taken_is_written_before_the_last_handle_is_gone() {
        let output = Output::default();
        let log = AccessLog::start(LogFormat::Json, output.clone()).unwrap();
        let writer = log.0.as_ref().unwrap();
        for _ in 0..1000 {
            writer.take(&line(), SystemTime::UNIX_EPOCH);
        }
        drop(log);
        assert_eq!(output.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count(), 1000);
    }
}
