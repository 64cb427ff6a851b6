//! Event streams of sessions that are opened again, behind a response that the client has already.
//!
//! Each in a task of its own, which ends with who waits for it. Passes no byte on.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use tokio_util::task::AbortOnDropHandle;

use super::delivered::Delivered;
use super::session::{End, SessionDelivery, is_own_stream, is_revivable};
use super::trip::Trip;
use crate::body::{RequestBody, Upload};
use crate::headers::LAST_EVENT_ID;
use crate::proxy::call::Kind;
use crate::proxy::error::Refused;
use crate::proxy::instead::{Care, Instead};
use crate::proxy::record::Recorder;
use crate::proxy::way::{Again, Left, Reopened, Way};
use crate::telemetry::family::SessionEvent;

/// How long a client waits for its event stream to be opened before it gets one of ours.
const REOPEN_WAIT: Duration = Duration::from_secs(1);

type Boxed = Box<Request<RequestBody>>;

// === impl SessionDelivery ===

impl SessionDelivery {
    /// How the stream that answers a request is opened again.
    pub(super) fn again(self: &Arc<Self>, trip: &Trip, upload: &Arc<Upload>) -> Option<Again> {
        let (delivery, trip, upload) = (Arc::clone(self), trip.clone(), Arc::clone(upload));
        let homes = &self.reviver.sessions.homes;
        let home = is_own_stream(&trip.facts).then(|| homes.follow(trip.ticket.id));
        let since = trip.ticket.home.since;
        let open = Arc::new(move |left: Left| {
            let request = left.leased.into_request(&upload);
            let body = RequestBody::again(&upload);
            let mut request = request.zip(body).map(|(request, body)| request.map(|_| body));
            if let (Some(request), Some(last)) = (&mut request, left.last_event) {
                // One that is empty is none (WHATWG HTML, section 9.2.3).
                match last.is_empty() {
                    true => drop(request.headers_mut().remove(LAST_EVENT_ID)),
                    false => drop(request.headers_mut().insert(LAST_EVENT_ID, last)),
                }
            }
            let behind = Some(left.since);
            let trip = Trip { was_open: true, behind, care: Care::None, ..trip.clone() };
            let delivery = Arc::clone(&delivery);
            AbortOnDropHandle::new(tokio::spawn(async move {
                tokio::time::sleep(left.pause).await;
                Box::pin(delivery.open(trip, Box::new(request?))).await.ok()
            }))
        });
        Some(Again { open, home, since })
    }

    /// Carries the request of an event stream.
    async fn open(&self, mut trip: Trip, request: Boxed) -> Result<Reopened, End> {
        let response = self.carry(&mut trip, request, true).await?;
        Ok(Reopened { response, way: trip.way, revived: trip.care == Care::Revived })
    }

    /// Opens a session's own stream on the session that takes its place; the client has a stream of ours until
    /// then. One of ours ends cleanly where no server was there in time, however short that was: clients open it again,
    /// and count refusals.
    pub(super) async fn reopen(
        self: &Arc<Self>,
        trip: Trip,
        request: Boxed,
        record: &mut Recorder,
    ) -> Result<Delivered, Refused> {
        let upload = Arc::clone(request.body().upload());
        if !is_revivable(&trip) {
            record.cared(Care::Lost);
            return self.stand_in(End::NoSession, &trip, &upload);
        }
        let again = self.again(&trip, &upload);
        let with_again = |mut way: Way| {
            if let Some(session) = &mut way.session {
                session.again = again.map(|again| Again { since: session.since, ..again });
            }
            way
        };
        let (delivery, opens) = (Arc::clone(self), trip.clone());
        let mut opening = AbortOnDropHandle::new(tokio::spawn(async move {
            Box::pin(delivery.open(opens, request)).await
        }));
        let opened = tokio::time::timeout(REOPEN_WAIT, &mut opening).await;
        let reopening = match opened {
            Ok(Ok(Ok(Reopened { response, way, revived }))) => {
                record.cared(if revived { Care::Revived } else { Care::None });
                record.enter(&way, Kind::Stream);
                record.on_connection(response.body().since());
                return Ok(Delivered::Response(response, with_again(way)));
            }
            // Or each that it began was gone at once: there may be one later.
            Ok(Ok(Err(End::Unavailable | End::Gone(_)))) => {
                record.cared(Care::Lost);
                trip.way.route.metrics.session(SessionEvent::Lost("no_server"));
                tokio::spawn(std::future::ready(None))
            }
            Ok(Ok(Err(end))) => {
                record.cared(Care::Lost);
                return self.stand_in(end, &trip, &upload);
            }
            // A fault of ours says nothing of the session.
            Ok(Err(_)) => tokio::spawn(std::future::ready(None)),
            Err(_) => tokio::spawn(async move { opening.await.ok()?.ok() }),
        };
        let reopening = AbortOnDropHandle::new(reopening);
        Ok(Delivered::Instead(Instead::Held(reopening, Box::new(with_again(trip.way)))))
    }
}
