//! A response on its way from the backend to the client: every frame passes in the poll that brought it.
//!
//! Owns what must live as long as the body: the lease and the record. Event streams are followed,
//! so that a comment or an end stands only between events; nothing else of a body is changed, but for
//! the legacy `endpoint` event. Never decides where a request goes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_ENCODING;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::events::Events;
use super::plan::RelayPlan;
use super::reopens::Reopens;
use super::task::TaskWatch;
use super::timeouts::{BodyTimer, Expired};
use super::watchdog::Watchdog;
use crate::headers;
use crate::proxy::call::Kind;
use crate::proxy::instead::Care;
use crate::proxy::record::Recorder;
use crate::proxy::way::{Again, Left, Reopened, Reopening};
use crate::telemetry::record::Outcome;
use crate::upstream::{Leased, SendError};

/// How soon a session's own stream is opened again that its backend has ended: as soon as a client would.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a call is sent again whose stream says nothing.
const MAX_TRIES: u32 = 3;
/// What a silent event stream gets (D15): a comment, which every parser skips.
const COMMENT: &[u8] = b": keep-alive\n\n";

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
    #[error("the response has not ended within the route's total limit")]
    Total,
}

/// A body on its way, with everything that ends with it.
#[derive(Debug)]
pub struct Relay {
    start: Bytes,
    /// Recycled when the body has ended; one that is dropped closes its connection.
    leased: Option<Leased>,
    reopens: Option<Box<Reopens>>,
    /// The backend's stream is being opened.
    reopening: Option<Reopening>,
    record: Box<Recorder>,
    ending: Option<Ending>,
    timer: Option<BodyTimer>,
    watchdog: Option<Watchdog>,
    events: Option<Box<Events>>,
    task: Option<Box<TaskWatch>>,
}

#[derive(Debug)]
enum Ending {
    /// Everything has been passed on.
    Clean,
    /// The next poll breaks off: what came before must be flushed first.
    Broken(Box<StreamError>),
}

type Polled = Poll<Option<Result<Frame<Bytes>, StreamError>>>;

// === impl Relay ===

impl Relay {
    /// `start` has been read already and goes out first. Boxed, for it is large and moves a lot.
    pub(super) fn new(
        start: Bytes,
        leased: Leased,
        plan: RelayPlan,
        record: Box<Recorder>,
    ) -> Box<Self> {
        let ended = start.is_empty() && leased.is_end_stream();
        let (mut timer, mut watchdog) = (None, None);
        if !ended {
            timer = BodyTimer::start(plan.limits);
            watchdog = Watchdog::start(plan.limits, record.task());
        }
        let mut stream = Self::start(start, plan, record, (timer, watchdog));
        stream.leased = Some(leased);
        stream.follow();
        if ended {
            stream.finish(Outcome::Complete);
        }
        stream
    }

    /// A stream whose backend's is still to come; a comment at once tells the client that it is heard.
    pub(super) fn held(reopening: Reopening, plan: RelayPlan, record: Box<Recorder>) -> Box<Self> {
        let limits = (BodyTimer::start(plan.limits), Watchdog::start(plan.limits, record.task()));
        let mut stream = Self::start(Bytes::from_static(COMMENT), plan, record, limits);
        stream.reopening = Some(reopening);
        stream.task = None;
        stream
    }

    /// Without a backend yet.
    fn start(
        start: Bytes,
        plan: RelayPlan,
        record: Box<Recorder>,
        (timer, watchdog): (Option<BodyTimer>, Option<Watchdog>),
    ) -> Box<Self> {
        let room = Box::new_uninit();
        let relay = Self {
            start,
            leased: None,
            reopens: plan.again.map(|again| Reopens::new(again, record.started())),
            reopening: None,
            record,
            ending: None,
            timer,
            watchdog,
            events: plan.events.map(|plan| Box::new(Events::new(*plan))),
            task: plan.task,
        };
        Box::write(room, relay)
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
        if self.reopening.is_some() {
            return SizeHint::default();
        }
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
            Some(Ending::Broken(error)) => return Poll::Ready(Some(Err(*error))),
        }
        if !self.start.is_empty() {
            let start = std::mem::take(&mut self.start);
            self.record.on_data(start.len());
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        loop {
            let Some(leased) = &mut self.leased else {
                match self.poll_reopening(cx) {
                    None => return Poll::Ready(None),
                    Some(Poll::Pending) => return self.while_silent(cx),
                    Some(Poll::Ready(true)) => continue,
                    Some(Poll::Ready(false)) => return self.not_reopened(),
                }
            };
            match Pin::new(leased).poll_frame(cx) {
                Poll::Pending => return self.while_silent(cx),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(frame) = self.pass(frame) {
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    if !self.open_again(Duration::ZERO) {
                        return self.broken(error, cx);
                    }
                }
                Poll::Ready(None) => {
                    if !self.open_again(AGAIN_AFTER) {
                        return self.ended();
                    }
                }
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
        if let Some(data) = frame.data_ref() {
            self.record.on_response(data);
            if self.task.as_mut().is_some_and(|task| task.pass(data)) {
                self.task = None;
            }
        }
        // hyper does not poll again after the last byte of a sized body.
        let last = self.leased.as_ref().is_none_or(Body::is_end_stream);
        let frame = match frame.into_data() {
            Err(mut trailers) => {
                if let Some(trailers) = trailers.trailers_mut() {
                    headers::strip_trailers(trailers);
                    self.record.on_grpc(trailers);
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
        if self.reopens.is_some()
            && !self.events.as_ref().is_some_and(|events| events.may_ever_begin_again())
        {
            self.forget_request();
        }
        // What is held goes out by the poll that finds the end.
        if last && !self.events.as_ref().is_some_and(|events| events.has_more()) {
            self.finish(Outcome::Complete);
        }
        Some(frame)
    }

    /// No other stream will go on in this one's place: what was kept for that goes.
    fn forget_request(&mut self) {
        self.reopens = None;
        self.record.upload().tap.forget();
        if let Some(leased) = &mut self.leased {
            leased.forget_request();
        }
    }

    /// Nothing comes from upstream: is something due, or is it time to leave?
    fn while_silent(&mut self, cx: &mut Context<'_>) -> Polled {
        if let Some(events) = &mut self.events
            && events.may_leave(cx)
        {
            let end = events.farewell().inspect(|end| self.record.on_own(end));
            self.finish(Outcome::Drained);
            return Poll::Ready(end.map(|end| Ok(Frame::data(end))));
        }
        if self.events.as_mut().is_some_and(|e| e.may_begin_again() && e.has_moved(cx))
            && self.open_again(Duration::ZERO)
        {
            // What was opened has to know whom to wake.
            cx.waker().wake_by_ref();
            return Poll::Pending;
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

    /// Whether the backend's stream is there, `None` if nobody opens it.
    fn poll_reopening(&mut self, cx: &mut Context<'_>) -> Option<Poll<bool>> {
        let reopening = self.reopening.as_mut()?;
        let Poll::Ready(opened) = Pin::new(reopening).poll(cx) else { return Some(Poll::Pending) };
        self.reopening = None;
        let Ok(Some(Reopened { response, way, revived })) = opened else {
            return Some(Poll::Ready(false));
        };
        if revived {
            self.record.cared(Care::Revived);
        }
        let streams = response.status() == StatusCode::OK
            && headers::is_event_stream(response.headers())
            && !response.headers().contains_key(CONTENT_ENCODING);
        if streams {
            self.record.enter(&way, Kind::Stream);
            self.leased = Some(response.into_body());
            if let Some(reopens) = &mut self.reopens {
                reopens.opened = Instant::now();
                if let Some(session) = &way.session
                    && reopens.again.since != session.since
                {
                    reopens.again.since = session.since;
                    self.events.iter_mut().for_each(|events| events.moved(session.since));
                }
            }
            self.follow();
        }
        Some(Poll::Ready(streams))
    }

    /// From here on the stream goes where its session goes.
    fn follow(&mut self) {
        if let (Some(reopens), Some(events)) = (&self.reopens, &mut self.events)
            && let Some(home) = &reopens.again.home
        {
            events.follow(home, reopens.again.since);
        }
    }

    /// The backend has left a stream of which the client has lost nothing: it is opened again, after a pause.
    fn open_again(&mut self, pause: Duration) -> bool {
        let (Some(reopens), Some(events)) = (&mut self.reopens, &self.events) else { return false };
        if !events.may_begin_again() {
            return false;
        }
        let wait = reopens.wait(events.scanner.events());
        // A call's is opened again only so many times.
        if events.is_awaited() && reopens.tries > MAX_TRIES {
            return false;
        }
        let Some(leased) = self.leased.take() else { return false };
        let Again { open, since, .. } = &reopens.again;
        let (pause, since, last_event) = (pause.max(wait), *since, events.last_event());
        self.reopening = Some(open(Left { leased, pause, since, last_event }));
        if events.is_awaited() {
            self.record.cared(Care::Replayed);
        }
        true
    }

    fn not_reopened(&mut self) -> Polled {
        self.finish(Outcome::UpstreamBroke);
        Poll::Ready(self.stand_in(true).map(|answer| Ok(Frame::data(answer))))
    }

    /// A broken backend is an abort, but for a session's own stream between two events: clients count
    /// aborts of those and give up (D14).
    fn broken(&mut self, error: SendError, cx: &Context<'_>) -> Polled {
        self.finish(Outcome::UpstreamBroke);
        if let Some(answer) = self.stand_in(true) {
            return Poll::Ready(Some(Ok(Frame::data(answer))));
        }
        if self.events.as_ref().is_some_and(|events| events.may_end()) {
            return Poll::Ready(None);
        }
        self.ending = Some(Ending::Broken(Box::new(error.into())));
        self.keep_unanswered();
        if let Some(held) = self.events.as_mut().and_then(|events| events.release()) {
            return Poll::Ready(Some(Ok(Frame::data(held))));
        }
        // An error makes hyper close at once; let it flush what came before.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn ended(&mut self) -> Polled {
        self.finish(Outcome::Complete);
        if let Some(answer) = self.stand_in(false) {
            return Poll::Ready(Some(Ok(Frame::data(answer))));
        }
        self.keep_unanswered();
        let held = self.events.as_mut().and_then(|events| events.release());
        Poll::Ready(held.map(|held| Ok(Frame::data(held))))
    }

    /// The client may ask for the rest of the stream.
    fn keep_unanswered(&mut self) {
        if let Some(events) = &mut self.events {
            events.keep_unanswered();
        }
    }

    /// The answer that a stream's end has left out, where one can still be put into it: clients would wait for it
    /// for minutes.
    fn stand_in(&mut self, broken: bool) -> Option<Bytes> {
        let answer = self.events.as_mut()?.stand_in(broken)?;
        self.record.cared(Care::Lost);
        self.record.on_data(answer.len());
        Some(answer)
    }

    fn finish(&mut self, outcome: Outcome) {
        self.record.ended(outcome);
        self.ending = Some(Ending::Clean);
        self.reopening = None;
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
        self.keep_unanswered();
        match self.watchdog.as_ref().and_then(Watchdog::due) {
            Some(Expired::Total) => self.record.ended(Outcome::TotalTimeout),
            Some(Expired::Idle | Expired::Comment) => self.record.ended(Outcome::IdleTimeout),
            None => {}
        }
    }
}
