//! One structured line for each finished exchange, on the tracing target `access`.
//!
//! Fields are fixed here. Knows nothing of how an exchange came to its end; `proxy/exchange.rs` fills
//! the [`Line`].

use std::net::SocketAddr;
use std::time::Duration;

/// What one finished exchange was.
#[derive(Debug)]
pub struct Line<'a> {
    /// The client's address.
    pub peer: SocketAddr,
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

impl Line<'_> {
    /// Writes the line, if the target is enabled.
    pub fn write(&self) {
        let ms = |time: Option<Duration>| time.map(|t| t.as_secs_f64() * 1000.0);
        tracing::info!(
            target: "access",
            peer = %self.peer,
            method = self.method,
            path = self.path,
            host = self.target,
            route = self.route,
            class = self.class,
            status = self.status,
            outcome = self.outcome,
            traceparent = self.traceparent,
            bytes = self.bytes,
            events = self.events,
            request_bytes = self.request_bytes,
            connect_ms = ms(self.connect),
            head_ms = ms(self.head),
            first_ms = ms(self.first),
            whole_ms = ms(Some(self.whole)),
        );
    }
}
