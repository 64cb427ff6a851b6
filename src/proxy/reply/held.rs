//! A session's own event stream while its session begins anew: comments until the backend's stream is there, which
//! goes on in its place.
//!
//! A stream that is refused twice is given up by some clients for good, without a sign. Decides nothing about the
//! session.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use super::plan::RelayPlan;
use super::relay::{COMMENT, Relay, StreamError};
use crate::drain::{Phase, Watch};
use crate::headers;
use crate::proxy::instead::Reopening;
use crate::proxy::record::Recorder;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::telemetry::record::Outcome;
use crate::upstream::Leased;

/// Longer than any session is waited for.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A stream of ours, then the backend's.
pub struct Held {
    state: State,
    facts: Facts,
    watch: Watch,
    closing: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
    comment: Pin<Box<Sleep>>,
    /// Zero is never again.
    keep_alive: Duration,
    /// Until the backend's stream takes it.
    record: Option<Recorder>,
}

enum State {
    Waiting(Reopening),
    Relaying(Box<Relay>),
    Ended,
}

type Polled = Poll<Option<Result<Frame<Bytes>, StreamError>>>;

// === impl Held ===

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").finish_non_exhaustive()
    }
}

impl Held {
    pub(super) fn new(
        (reopening, keep_alive): (Reopening, Duration),
        facts: Facts,
        watch: Watch,
        record: Recorder,
    ) -> Self {
        let mut until = watch.clone();
        Self {
            state: State::Waiting(reopening),
            facts,
            watch,
            closing: Box::pin(async move { until.reached(Phase::Closing).await }),
            keep_alive,
            // The first one at once, so that the client knows that it is heard.
            comment: Box::pin(tokio::time::sleep(Duration::ZERO)),
            record: Some(record),
        }
    }

    pub(super) fn failed(&mut self) {
        if let Some(record) = &mut self.record {
            record.failed();
        }
        if let State::Relaying(relay) = &mut self.state {
            relay.failed();
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Waiting(_) => false,
            State::Relaying(relay) => relay.is_end_stream(),
            State::Ended => true,
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Relaying(relay) => return relay.poll_frame(cx),
                State::Waiting(reopening) => match Pin::new(reopening).poll(cx) {
                    Poll::Ready(Ok(Some((response, way)))) => self.begin(response, &way),
                    Poll::Ready(_) => return self.end(Outcome::UpstreamBroke),
                    Poll::Pending => return self.while_waiting(cx),
                },
            }
        }
    }

    /// The backend's stream is there, or what it says instead of one: then ours ends, and the client hears it when
    /// it asks again.
    fn begin(&mut self, response: http::Response<Leased>, way: &Way) {
        let (head, leased) = response.into_parts();
        let events = head.status == StatusCode::OK && headers::is_event_stream(&head.headers);
        let Some(mut record) = self.record.take() else { return };
        record.enter(&way.route, crate::proxy::call::Kind::Stream);
        self.state = if events {
            let plan = RelayPlan::new(&head, &self.facts, way, &self.watch, record.started());
            State::Relaying(Box::new(Relay::new(Bytes::new(), leased, plan, record)))
        } else {
            record.ended(Outcome::UpstreamBroke);
            State::Ended
        };
    }

    fn while_waiting(&mut self, cx: &mut Context<'_>) -> Polled {
        if self.closing.as_mut().poll(cx).is_ready() {
            return self.end(Outcome::Drained);
        }
        if self.comment.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let pause = if self.keep_alive.is_zero() { NEVER } else { self.keep_alive };
        self.comment.as_mut().reset(Instant::now() + pause);
        // The timer has to know whom to wake; if it is over at once, so is the next poll.
        if self.comment.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        if let Some(record) = &self.record {
            record.on_comment();
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))))
    }

    fn end(&mut self, outcome: Outcome) -> Polled {
        if let Some(mut record) = self.record.take() {
            record.ended(outcome);
        }
        self.state = State::Ended;
        Poll::Ready(None)
    }
}
