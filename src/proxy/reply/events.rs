//! An event stream while it passes: what may be added to it, how it may end, and what begins again in its place.
//!
//! Sees each byte once and holds none back, but for the legacy `endpoint` event. Knows no connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::task::coop::has_budget_remaining;
use tokio::time::sleep;

use super::plan::{Awaited, EventPlan, Legacy};
use crate::drain::{Phase, Watch};
use crate::protocol::answered::{AnswerScanner, LastId};
use crate::protocol::batch::Seen;
use crate::protocol::jsonrpc::is_same_id;
use crate::protocol::sse::{SseScanner, message_event};
use crate::protocol::subscription::Subscription;
use crate::proxy::instead;
use crate::rewrite::endpoint::{EndpointEvent, HeldEvent};
use crate::rewrite::origin::path_absolute;
use crate::rewrite::pin;
use crate::session::homes::Slot;
use crate::session::unanswered::Call;

/// How long a stream that is to end is listened to yet: what the backend has sent before may be in the kernel, of which
/// the runtime hears at its next turn, or with a connection of HTTP/2, which is a task of its own.
const LISTEN_ON: Duration = Duration::from_millis(50);

/// An event stream while it passes.
pub(super) struct Events {
    pub(super) scanner: SseScanner,
    /// Something may be added.
    open: bool,
    // Boxed, all three: most streams have none of them, or not for long.
    first: Option<Box<FirstEvent>>,
    /// Looks at what the stream says, as long as somebody wants to know.
    answers: Option<Box<AnswerScanner>>,
    /// The call that the stream is to answer, until it has.
    awaited: Option<Box<Awaited>>,
    /// It begins behind an event: it may be the rest of a call's.
    resumes: bool,
    /// A comment in front of a legacy stream's first event would be an event in front of it.
    after_first: bool,
    /// Of a session's own stream.
    standalone: Option<Departure>,
    subscription: Option<Box<(Departure, Subscription)>>,
    /// Ready when the session lives elsewhere.
    moves: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

/// Whether the program drains, and the stream with it.
enum Departure {
    Serving(Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    Draining,
}

#[derive(Debug)]
struct FirstEvent {
    event: EndpointEvent,
    legacy: Legacy,
}

// === impl Events ===

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("scanner", &self.scanner).finish_non_exhaustive()
    }
}

impl Events {
    pub(super) fn new(plan: EventPlan) -> Self {
        let standalone = plan.standalone.map(Departure::new);
        let subscription = plan.subscription.map(|it| Box::new((Departure::new(it.0), it.1)));
        let after_first = plan.legacy.is_some();
        let first = plan
            .legacy
            .map(|legacy| Box::new(FirstEvent { event: EndpointEvent::default(), legacy }));
        let asks = plan.awaited.is_some() || standalone.is_some();
        Self {
            scanner: SseScanner::default(),
            open: plan.open,
            first,
            answers: asks.then(Box::default),
            awaited: plan.awaited.map(Box::new),
            resumes: plan.resumes,
            after_first,
            standalone,
            subscription,
            moves: None,
        }
    }

    /// The bytes that go out now; `None` if all of them are held.
    pub(super) fn pass(&mut self, data: Bytes) -> Option<Bytes> {
        let out = match &mut self.first {
            None => data,
            Some(first) => {
                let FirstEvent { event, legacy } = &mut **first;
                match event.feed(&data, &|url| legacy.rewritten(url)) {
                    HeldEvent::Wait(passed) if passed.is_empty() => return None,
                    HeldEvent::Wait(passed) => Bytes::from(passed),
                    HeldEvent::Release(bytes) => {
                        self.first = None;
                        Bytes::from(bytes)
                    }
                }
            }
        };
        self.scanner.feed(&out);
        if let Some(subscription) = &mut self.subscription {
            subscription.1.feed(&out);
        }
        if let Some(answers) = &mut self.answers {
            answers.feed(&out);
            if let Some(awaited) = &mut self.awaited
                && awaited.sees(&out, answers)
            {
                (self.answers, self.awaited) = (None, None);
            }
        }
        Some(out)
    }

    /// The stream comes from where the session has lived since this time.
    pub(super) fn follow(&mut self, home: &Arc<Slot>, since: u64) {
        let home = Arc::clone(home);
        self.moves = Some(Box::pin(async move {
            home.leaves(since).await;
            sleep(LISTEN_ON).await;
        }));
    }

    /// Whether the session lives elsewhere by now, once.
    pub(super) fn has_moved(&mut self, cx: &mut Context<'_>) -> bool {
        let moved = self.moves.as_mut().is_some_and(|moves| moves.as_mut().poll(cx).is_ready());
        if moved {
            self.moves = None;
        }
        moved
    }

    /// Whether bytes may go out behind the backend's last one.
    pub(super) fn has_more(&self) -> bool {
        self.awaited.is_some() && self.open
            || self.moves.is_some()
            || self.first.as_ref().is_some_and(|first| first.event.is_holding())
    }

    /// What is held back when the stream ends inside an event.
    pub(super) fn release(&mut self) -> Option<Bytes> {
        let held = self.first.take()?.event.release();
        (!held.is_empty()).then(|| Bytes::from(held))
    }

    /// An answer of ours to the call that the stream has not answered. None inside an event, and none where nothing may
    /// be added or the client asks for the rest by the id of an event: but in a session whose stream is `broken`, since
    /// nobody can tell in time whether its server lives with the session or has just been restarted.
    pub(super) fn stand_in(&mut self, broken: bool) -> Option<Bytes> {
        let in_session = self.awaited.as_ref()?.session.is_some();
        if !self.open
            || !self.scanner.is_between()
            || self.is_resumable() && !(broken && in_session)
        {
            return None;
        }
        let awaited = self.awaited.take()?;
        Some(Bytes::from(instead::events(&awaited.answers, &awaited.route)))
    }

    /// The client may ask for the rest of a session's call.
    pub(super) fn keep_unanswered(&mut self) {
        let last = self.last_event();
        if let (Some(awaited), Some(last)) = (self.awaited.take(), last)
            && !last.is_empty()
            && let Some((sessions, id, since)) = awaited.session
        {
            let event = last.as_bytes().into();
            sessions.unanswered.keep(id, Call { answers: awaited.answers, since, event });
        }
    }

    /// Whether the client can ask for the rest.
    fn is_resumable(&self) -> bool {
        self.last_event().is_some_and(|last| !last.is_empty()) || self.is_too_long()
    }

    /// The id of the last event; `None` if there was none.
    pub(super) fn last_event(&self) -> Option<HeaderValue> {
        match self.answers.as_ref()?.last_id() {
            LastId::None => self.awaited.as_ref()?.behind.clone(),
            LastId::Is(id) => HeaderValue::from_bytes(id).ok(),
            LastId::TooLong => None,
        }
    }

    /// Whether the stream has an id that cannot be asked by.
    fn is_too_long(&self) -> bool {
        self.answers.as_ref().is_some_and(|answers| match answers.last_id() {
            LastId::None => false,
            LastId::Is(id) => HeaderValue::from_bytes(id).is_err(),
            LastId::TooLong => true,
        })
    }

    /// Whether another stream may go on in this one's place: a session's own between two events, or that of a call
    /// which has said nothing yet.
    pub(super) fn may_begin_again(&self) -> bool {
        (self.is_own() && !self.is_too_long() || self.is_unheard()) && self.scanner.is_between()
    }

    /// The stream goes on from where the session has lived since this time: the ids of events until now are unknown
    /// there.
    pub(super) fn moved(&mut self, since: u64) {
        if let Some(answers) = &mut self.answers {
            **answers = AnswerScanner::default();
        }
        let session = self.awaited.as_mut().and_then(|awaited| awaited.session.as_mut());
        if let Some((_, _, lives_since)) = session {
            *lives_since = since;
        }
    }

    /// Whether another one may do so later, whatever comes.
    pub(super) fn may_ever_begin_again(&self) -> bool {
        self.is_own() || self.is_unheard()
    }

    /// Whether it is a session's own, which goes on; what has brought an answer behind an event was a call's.
    fn is_own(&self) -> bool {
        let is_calls =
            || self.resumes && self.answers.as_ref().is_some_and(|answers| answers.is_answered());
        matches!(self.standalone, Some(Departure::Serving(_))) && !is_calls()
    }

    /// Whether it is a call's that has said nothing yet.
    fn is_unheard(&self) -> bool {
        self.awaited.is_some() && !self.resumes && self.scanner.events() == 0
    }

    /// Whether it is to answer a call, and has not.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    pub(super) fn may_comment(&self) -> bool {
        self.scanner.is_between() && (!self.after_first || self.scanner.events() > 0)
    }

    /// Whether the stream is a session's own and between two events.
    pub(super) fn may_end(&self) -> bool {
        self.standalone.is_some() && self.scanner.is_between()
    }

    /// Whether the program drains and this stream can go without loss. A client that does not read
    /// cannot be told of an end: its stream stays until it reads again or the drain's deadline cuts it.
    pub(super) fn may_leave(&mut self, cx: &mut Context<'_>) -> bool {
        let due = match (&mut self.standalone, self.subscription.as_deref_mut()) {
            (Some(departure), _) => departure.is_due(cx),
            (None, Some((departure, subscription))) => {
                departure.is_due(cx) && subscription.is_open()
            }
            (None, None) => false,
        };
        let may = due && self.scanner.is_between();
        if may && !has_budget_remaining() {
            // Without a budget every read is pending, whatever has come: the next turn looks again.
            cx.waker().wake_by_ref();
            return false;
        }
        may
    }

    /// What a subscription's client is told at the end that a drain makes.
    pub(super) fn farewell(&mut self) -> Option<Bytes> {
        let (_, subscription) = *self.subscription.take()?;
        Some(Bytes::from(message_event(&subscription.end())))
    }
}

// === impl Departure ===

impl Departure {
    fn new(mut watch: Watch) -> Self {
        Self::Serving(Box::pin(async move {
            watch.reached(Phase::Closing).await;
            sleep(LISTEN_ON).await;
        }))
    }

    fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        if let Self::Serving(drain) = self
            && drain.as_mut().poll(cx).is_ready()
        {
            *self = Self::Draining;
        }
        matches!(self, Self::Draining)
    }
}

// === impl Awaited ===

impl Awaited {
    /// These bytes pass, of which `answers` has seen whether a response is among them. Whether everything is answered,
    /// or may be.
    fn sees(&mut self, bytes: &[u8], answers: &AnswerScanner) -> bool {
        let Self { answers: open, batch, .. } = self;
        let Some(batch) = batch else { return answers.is_answered() };
        batch.feed(bytes, |seen| match seen {
            Seen::Answer(id) => open.retain(|one| !is_same_id(&one.id, id)),
            // Better none than a second one.
            Seen::Unclear => open.clear(),
        });
        open.is_empty()
    }
}

// === impl Legacy ===

impl Legacy {
    /// The URL as the client gets it: on the proxy, with the pin; `None` as it is.
    fn rewritten(&self, url: &[u8]) -> Option<Vec<u8>> {
        let Self { way, pin } = self;
        let is_backend = |host: &str| way.table.is_backend(host, &way.route);
        let on_proxy = path_absolute(url, &is_backend);
        // A URL that leads elsewhere is not ours to change.
        let here = on_proxy.is_some() || url.starts_with(b"/") && !url.starts_with(b"//");
        match pin {
            Some(token) if here => {
                Some(pin::put(on_proxy.as_deref().unwrap_or(url), token.as_bytes()))
            }
            _ => on_proxy,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::task::coop::consume_budget;
    use tokio::time::advance;

    use super::*;
    use crate::drain;
    use crate::session::homes::Home;
    use crate::upstream::EndpointId;

    fn events(standalone: Option<Watch>) -> Events {
        let (subscription, awaited, legacy) = (None, None, None);
        Events::new(EventPlan {
            open: true,
            standalone,
            subscription,
            awaited,
            resumes: false,
            legacy,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_to_end_is_listened_to_yet() {
        let (trigger, watch) = drain::channel();
        let mut events = events(Some(watch));
        let home = Arc::<Slot>::default();
        events.follow(&home, 0);
        trigger.advance(Phase::Closing);
        let endpoint = EndpointId { address: ([127, 0, 0, 1], 1).into(), uid: None };
        home.moved(Home { endpoint, id: None, since: 1 });
        let mut asked =
            async || poll_fn(|cx| Poll::Ready((events.may_leave(cx), events.has_moved(cx)))).await;
        assert_eq!(asked().await, (false, false));
        advance(LISTEN_ON).await;
        assert_eq!(asked().await, (true, true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_may_not_read_any_more_ends_no_stream() {
        let (trigger, watch) = drain::channel();
        let mut events = events(Some(watch));
        trigger.advance(Phase::Closing);
        poll_fn(|cx| events.may_leave(cx).then_some(()).map_or(Poll::Pending, Poll::Ready)).await;
        let mut spent = false;
        poll_fn(|cx| {
            while !spent && has_budget_remaining() {
                let _one_less = pin!(consume_budget()).poll(cx);
            }
            assert_eq!(events.may_leave(cx), spent, "with a budget only");
            if std::mem::replace(&mut spent, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
