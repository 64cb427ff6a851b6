//! The event stream of a call that its client asks for the rest of: from the server that has it, or, once that is
//! gone, from us.
//!
//! Begins no session anew: another one has no rest of it.

use std::sync::Arc;

use http::{Request, StatusCode};

use super::delivered::Delivered;
use super::session::{End, SessionDelivery, is_own_stream};
use super::trip::Trip;
use crate::body::RequestBody;
use crate::headers::{self, LAST_EVENT_ID};
use crate::proxy::error::Refused;
use crate::proxy::instead::{Care, Instead};
use crate::proxy::record::Recorder;
use crate::session::unanswered::Call;
use crate::telemetry::family::SessionEvent;

type Boxed = Box<Request<RequestBody>>;

// === impl SessionDelivery ===

impl SessionDelivery {
    /// The call that the request asks for the rest of, if it was not answered here.
    pub(super) fn resumed(&self, trip: &Trip, request: &Boxed) -> Option<Call> {
        if !trip.facts.has_last_event_id || !is_own_stream(&trip.facts) {
            return None;
        }
        let event = request.headers().get(LAST_EVENT_ID)?;
        self.reviver.sessions.unanswered.take(trip.ticket.id, event.as_bytes())
    }

    /// Gets the rest of the call's stream.
    pub(super) async fn resume(
        self: &Arc<Self>,
        mut trip: Trip,
        request: Boxed,
        call: Call,
        record: &mut Recorder,
    ) -> Result<Delivered, Refused> {
        let upload = Arc::clone(request.body().upload());
        if trip.ticket.home.since != call.since {
            request.into_body().discard();
            return Ok(answered(call, &trip, record));
        }
        trip.behind = Some(call.since);
        match self.carry(&mut trip, request, false).await {
            // It went to the session that has taken the other's place meanwhile.
            Ok(_) if trip.ticket.home.since != call.since => Ok(answered(call, &trip, record)),
            Ok(response) => {
                let streams = response.status() == StatusCode::OK
                    && headers::is_event_stream(response.headers());
                let id = trip.ticket.id;
                let mut delivered = self.arrived(response, trip, &upload, record);
                match &mut delivered {
                    Delivered::Response(_, way) if streams => {
                        if let Some(session) = &mut way.session {
                            (session.again, session.resumes) = (None, Some(call));
                        }
                    }
                    _ => self.reviver.sessions.unanswered.keep(id, call),
                }
                Ok(delivered)
            }
            Err(End::Gone(_)) => Ok(answered(call, &trip, record)),
            Err(end) => {
                self.reviver.sessions.unanswered.keep(trip.ticket.id, call);
                record.cared(Care::Lost);
                self.stand_in(end, &trip, &upload)
            }
        }
    }
}

/// The call's answer, in its server's place.
fn answered(call: Call, trip: &Trip, record: &mut Recorder) -> Delivered {
    record.cared(Care::Lost);
    trip.way.route.metrics.session(SessionEvent::AnsweredLost);
    Delivered::Instead(Instead::Event(call.answer))
}
