//! A response on its way from the backend to the client: every frame passes in the poll that brought it.
//!
//! Owns what must live as long as the body: the lease and the record. Event streams are followed,
//! so that a comment or an end stands only between events; nothing else of a body is changed, but for
//! the legacy `endpoint` event. Never decides where a request goes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::plan::{Awaited, EventPlan, RelayPlan};
use super::timeouts::{BodyTimer, Expired};
use super::watchdog::Watchdog;
use crate::drain::Phase;
use crate::headers;
use crate::protocol::answered::AnswerScanner;
use crate::protocol::sse::SseScanner;
use crate::proxy::instead::Care;
use crate::proxy::record::Recorder;
use crate::proxy::way::Way;
use crate::rewrite::endpoint::{EndpointEvent, Held};
use crate::rewrite::origin::path_absolute;
use crate::telemetry::family::SessionEvent;
use crate::telemetry::record::Outcome;
use crate::upstream::{Leased, SendError};

/// What a silent event stream gets (D15): a comment, which every parser skips.
pub(super) const COMMENT: &[u8] = b": keep-alive\n\n";

/// Why a body breaks off; the client sees an abort.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The backend broke off.
    #[error(transparent)]
    Upstream(#[from] SendError),
    /// The route's idle limit.
    #[error("no bytes from upstream within the route's idle limit")]
    Idle,
    /// A panic.
    #[error("the proxy has failed; its log says where")]
    Internal,
    /// The route's total limit.
    #[error("the answer has not ended within the route's total limit")]
    Total,
}

/// A body on its way, with everything that ends with it.
#[derive(Debug)]
pub struct Relay {
    start: Bytes,
    /// Recycled when the body has ended; one that is dropped closes its connection.
    leased: Option<Leased>,
    record: Recorder,
    ending: Option<Ending>,
    timer: Option<BodyTimer>,
    watchdog: Option<Watchdog>,
    events: Option<Box<Events>>,
}

#[derive(Debug)]
enum Ending {
    /// Everything has been passed on.
    Clean,
    /// The next poll breaks off: what came before must be flushed first.
    Broken(StreamError),
}

struct Events {
    scanner: SseScanner,
    first: Option<FirstEvent>,
    /// The call that the stream is to answer, until it has.
    awaited: Option<(AnswerScanner, Awaited)>,
    /// A comment in front of a legacy stream's first event would be an event in front of it.
    after_first: bool,
    standalone: Option<Standalone>,
}

/// A session's own stream, which follows the drain.
enum Standalone {
    Serving(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Draining,
}

#[derive(Debug)]
struct FirstEvent {
    event: EndpointEvent,
    way: Way,
}

type Polled = Poll<Option<Result<Frame<Bytes>, StreamError>>>;

// === impl Relay ===

impl Relay {
    /// `start` has been read already and goes out first.
    pub(super) fn new(start: Bytes, leased: Leased, plan: RelayPlan, record: Recorder) -> Self {
        let ended = start.is_empty() && leased.is_end_stream();
        let (mut timer, mut watchdog) = (None, None);
        if !ended {
            timer = BodyTimer::start(plan.limits);
            watchdog = Watchdog::start(plan.limits, record.task());
        }
        let mut stream = Self {
            start,
            leased: Some(leased),
            record,
            ending: None,
            timer,
            watchdog,
            events: plan.events.map(|plan| Box::new(Events::new(plan))),
        };
        if ended {
            stream.finish(Outcome::Complete);
        }
        stream
    }

    /// The proxy has failed.
    pub(super) fn failed(&mut self) {
        self.record.failed();
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self.ending {
            None => false,
            Some(Ending::Clean) => true,
            Some(Ending::Broken(_)) => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        // Only streams without a length are added to or changed.
        let rest = self.leased.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        match (rest.exact(), self.start.len() as u64) {
            (Some(rest), start) => SizeHint::with_exact(start + rest),
            (None, _) => SizeHint::default(),
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled {
        match self.ending.take() {
            None => {}
            Some(Ending::Clean) => {
                self.ending = Some(Ending::Clean);
                return Poll::Ready(None);
            }
            Some(Ending::Broken(error)) => return Poll::Ready(Some(Err(error))),
        }
        if !self.start.is_empty() {
            let start = std::mem::take(&mut self.start);
            self.record.on_data(start.len());
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        loop {
            let Some(leased) = &mut self.leased else { return Poll::Ready(None) };
            match Pin::new(leased).poll_frame(cx) {
                Poll::Pending => return self.while_silent(cx),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(frame) = self.pass(frame) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return self.broke(error, cx),
                Poll::Ready(None) => return self.ended(),
            }
        }
    }

    /// Counts a frame, and changes it where it is part of an `endpoint` event.
    fn pass(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        if let Some(timer) = &mut self.timer {
            timer.passed();
        }
        if let Some(watchdog) = &self.watchdog {
            watchdog.passed();
        }
        // hyper does not poll again after the last byte of a sized body.
        let last = self.leased.as_ref().is_none_or(Body::is_end_stream);
        let frame = match frame.into_data() {
            Err(mut trailers) => {
                if let Some(trailers) = trailers.trailers_mut() {
                    headers::strip_trailers(trailers);
                }
                trailers
            }
            Ok(data) => Frame::data(match &mut self.events {
                None => {
                    self.record.on_data(data.len());
                    data
                }
                Some(events) => {
                    let out = events.pass(data)?;
                    self.record.on_data(out.len());
                    self.record.on_events(events.scanner.events());
                    out
                }
            }),
        };
        // What is held goes out by the poll that finds the end.
        if last && !self.events.as_ref().is_some_and(|events| events.has_more()) {
            self.finish(Outcome::Complete);
        }
        Some(frame)
    }

    /// Nothing comes from upstream: is something due, or is it time to leave?
    fn while_silent(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(events) = &mut self.events
            && events.may_leave(cx)
        {
            self.finish(Outcome::Drained);
            return Poll::Ready(None);
        }
        let may_comment = self.events.as_ref().is_some_and(|events| events.may_comment());
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        match timer.poll_expired(cx, may_comment) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Expired::Comment) => {
                self.record.on_comment();
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(COMMENT)))))
            }
            Poll::Ready(Expired::Idle) => {
                self.finish(Outcome::IdleTimeout);
                Poll::Ready(Some(Err(StreamError::Idle)))
            }
            Poll::Ready(Expired::Total) => {
                self.finish(Outcome::TotalTimeout);
                Poll::Ready(Some(Err(StreamError::Total)))
            }
        }
    }

    /// A broken backend is an abort, but for a session's own stream between two events: clients count
    /// aborts of those and give up (D14).
    fn broke(&mut self, error: SendError, cx: &Context<'_>) -> Polled {
        self.finish(Outcome::UpstreamBroke);
        if let Some(answer) = self.stand_in() {
            return Poll::Ready(Some(Ok(Frame::data(answer))));
        }
        if self.events.as_ref().is_some_and(|events| events.may_end()) {
            return Poll::Ready(None);
        }
        self.ending = Some(Ending::Broken(error.into()));
        if let Some(held) = self.events.as_mut().and_then(|events| events.release()) {
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        // An error makes hyper close at once; let it flush what came before.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn ended(&mut self) -> Polled {
        self.finish(Outcome::Complete);
        if let Some(answer) = self.stand_in() {
            return Poll::Ready(Some(Ok(Frame::data(answer))));
        }
        let held = self.events.as_mut().and_then(|events| events.release());
        Poll::Ready(held.map(|held| Ok(Frame::data(held))))
    }

    /// The answer that a stream's end has left out, where one can still be put into it: clients would wait for it
    /// for minutes.
    fn stand_in(&mut self) -> Option<Bytes> {
        let answer = self.events.as_mut()?.stand_in()?;
        self.record.cared(Care::Lost);
        self.record.on_data(answer.len());
        Some(answer)
    }

    fn finish(&mut self, outcome: Outcome) {
        self.record.ended(outcome);
        self.ending = Some(Ending::Clean);
        self.timer = None;
        self.watchdog = None;
        if let Some(leased) = self.leased.take()
            && outcome == Outcome::Complete
        {
            leased.recycle();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        match self.watchdog.as_ref().and_then(Watchdog::due) {
            Some(Expired::Total) => self.record.ended(Outcome::TotalTimeout),
            Some(Expired::Idle | Expired::Comment) => self.record.ended(Outcome::IdleTimeout),
            None => {}
        }
    }
}

// === impl Events ===

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("scanner", &self.scanner).finish_non_exhaustive()
    }
}

impl Events {
    fn new(plan: EventPlan) -> Self {
        let standalone = plan.standalone.map(|mut watch| {
            Standalone::Serving(Box::pin(async move { watch.reached(Phase::Closing).await }))
        });
        let after_first = plan.legacy.is_some();
        let first = plan.legacy.map(|way| FirstEvent { event: EndpointEvent::default(), way });
        let awaited = plan.awaited.map(|awaited| (AnswerScanner::default(), awaited));
        Self { scanner: SseScanner::default(), first, awaited, after_first, standalone }
    }

    /// The bytes that go out now; `None` if all of them are held.
    fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let out = match &mut self.first {
            None => data,
            Some(first) => {
                let FirstEvent { event, way } = first;
                let is_backend = |host: &str| way.table.is_backend(host, &way.route);
                match event.feed(&data, &|url| path_absolute(url, &is_backend)) {
                    Held::Wait(passed) if passed.is_empty() => return None,
                    Held::Wait(passed) => Bytes::from(passed),
                    Held::Release(bytes) => {
                        self.first = None;
                        Bytes::from(bytes)
                    }
                }
            }
        };
        self.scanner.feed(&out);
        if let Some((answers, _)) = &mut self.awaited {
            answers.feed(&out);
            if answers.is_answered() {
                self.awaited = None;
            }
        }
        Some(out)
    }

    /// Whether bytes may go out behind the backend's last one.
    fn has_more(&self) -> bool {
        self.awaited.is_some() || self.first.as_ref().is_some_and(|first| first.event.is_holding())
    }

    /// What is held back when the stream ends inside an event.
    fn release(&mut self) -> Option<Bytes> {
        let held = self.first.take()?.event.release();
        (!held.is_empty()).then(|| Bytes::from(held))
    }

    /// An answer of ours to the call that the stream has not answered. None inside an event, and none where the
    /// client asks for the rest by the id of an event.
    fn stand_in(&mut self) -> Option<Bytes> {
        let (answers, awaited) = self.awaited.take()?;
        if answers.is_resumable() || !self.scanner.is_between() {
            return None;
        }
        awaited.route.metrics.session(SessionEvent::AnsweredLost);
        Some(Bytes::from(format!("event: message\ndata: {}\n\n", awaited.stand_in)))
    }

    fn may_comment(&self) -> bool {
        self.scanner.is_between() && (!self.after_first || self.scanner.events() > 0)
    }

    /// Whether the stream is a session's own and between two events.
    fn may_end(&self) -> bool {
        self.standalone.is_some() && self.scanner.is_between()
    }

    /// Whether the program drains and this stream can go without loss. A client that does not read
    /// cannot be told of an end: its stream stays until it reads again or the drain's deadline cuts it.
    fn may_leave(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(Standalone::Serving(drain)) = &mut self.standalone
            && drain.as_mut().poll(cx).is_ready()
        {
            self.standalone = Some(Standalone::Draining);
        }
        matches!(self.standalone, Some(Standalone::Draining)) && self.scanner.is_between()
    }
}
