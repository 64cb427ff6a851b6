//! The event stream of a call that its client asks for the rest of: from the server that has it, or, once that is
//! gone, from us.
//!
//! Begins no session anew: another one has no rest of it.

use std::sync::Arc;

use http::{HeaderValue, Request, StatusCode};

use super::delivered::Delivered;
use super::session::{End, SessionDelivery, is_own_stream};
use super::trip::Trip;
use crate::body::RequestBody;
use crate::headers;
use crate::proxy::error::Refused;
use crate::proxy::instead::{self, Care, Instead};
use crate::proxy::record::Recorder;
use crate::session::unanswered::{Asked, Call};

type Boxed = Box<Request<RequestBody>>;

// === impl SessionDelivery ===

impl SessionDelivery {
    /// The call that the request asks for the rest of behind this event, if it was not answered here.
    pub(super) async fn resumed(&self, trip: &Trip, event: &HeaderValue) -> Option<Asked> {
        if !is_own_stream(&trip.facts) {
            return None;
        }
        self.reviver.sessions.rest_of(trip.ticket.id, event.as_bytes()).await
    }

    /// Gets the rest of the call's stream. A client that leaves meanwhile may ask again.
    pub(super) async fn resume(
        self: &Arc<Self>,
        mut trip: Trip,
        request: Boxed,
        asked: Asked,
        record: &mut Recorder,
    ) -> Result<Delivered, Refused> {
        let upload = Arc::clone(request.body().upload());
        self.catch_up(&mut trip, asked.since()).await;
        if trip.ticket.home.since != asked.since() {
            request.into_body().discard();
            return Ok(answered(asked.into_call(), &trip, record));
        }
        trip.behind = Some(asked.since());
        match self.carry(&mut trip, request, false).await {
            // It went to the session that has taken the other's place meanwhile.
            Ok(_) if trip.ticket.home.since != asked.since() => {
                Ok(answered(asked.into_call(), &trip, record))
            }
            Ok(response) => {
                let streams = response.status() == StatusCode::OK
                    && headers::is_event_stream(response.headers());
                let mut delivered = self.arrived(response, trip, &upload, record);
                if let Delivered::Response(response, way) = &mut delivered
                    && let Some(session) = way.session.as_mut().filter(|_| streams)
                {
                    response.body_mut().forget_request();
                    (session.again, session.resumes) = (None, Some(asked.into_call()));
                }
                Ok(delivered)
            }
            Err(End::Gone(_)) => Ok(answered(asked.into_call(), &trip, record)),
            Err(end) => {
                record.cared(Care::Lost);
                self.stand_in(end, &trip, &upload)
            }
        }
    }

    /// Another replica may have had the call, and know better where its session lived.
    async fn catch_up(&self, trip: &mut Trip, since: u64) {
        if trip.ticket.home.since < since
            && let Some(home) = self.reviver.sessions.find(trip.ticket.id, &trip.ticket.home).await
        {
            trip.ticket.home = home;
        }
    }
}

/// The call's answer, in its server's place.
fn answered(call: Call, trip: &Trip, record: &mut Recorder) -> Delivered {
    record.cared(Care::Lost);
    Delivered::Instead(Instead::Events(instead::events(&call.answers, &trip.way.route)))
}
