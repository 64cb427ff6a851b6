//! What the client of a session is answered when no server's response can be had.
//!
//! Words only: nothing is sent or waited for here.

use std::sync::Arc;

use super::delivered::Delivered;
use super::lost::lost;
use super::session::{End, SessionDelivery, is_own_stream};
use super::trip::Trip;
use crate::body::Upload;
use crate::protocol::jsonrpc::is_one_way;
use crate::protocol::mcp;
use crate::proxy::error::{ProxyError, Refused};
use crate::proxy::instead::Instead;
use crate::telemetry::family::SessionEvent;

// === impl SessionDelivery ===

impl SessionDelivery {
    /// What the client is told when its session's server tells it nothing.
    pub(super) fn stand_in(
        &self,
        end: End,
        trip: &Trip,
        upload: &Arc<Upload>,
    ) -> Result<Delivered, Refused> {
        let metrics = &trip.way.route.metrics;
        let instead = |instead| Ok(Delivered::Instead(instead));
        let host = &trip.way.route.config.host;
        if trip.facts.is_delete && !matches!(end, End::Client(_)) {
            self.close(trip);
            return instead(Instead::Ended);
        }
        let no_session = || {
            metrics.session(SessionEvent::Lost("not_revived"));
            let params = trip.ticket.session.params.as_deref();
            Instead::NoSession { bad_request: params.is_some_and(mcp::is_python_1) }
        };
        let asked = upload.tap.all();
        match end {
            End::Client(error) => Err(Refused::sent(error)),
            End::Gone(..) | End::TooLarge if trip.facts.pin.is_some() => instead(no_session()),
            End::NoSession => instead(no_session()),
            End::Unknown(_) | End::Unavailable | End::TooLarge | End::Gone(..)
                if is_one_way(&asked) =>
            {
                instead(Instead::Taken)
            }
            // Some clients give a session up for any status; a connection that closes they open again.
            End::Unavailable if is_own_stream(&trip.facts) => {
                metrics.session(SessionEvent::Lost("no_server"));
                let why = "its session waits for it".to_owned();
                Err(Refused::sent(ProxyError::NoReadyEndpoint(host.clone(), why)))
            }
            End::Unknown(error) if trip.facts.pin.is_some() => Err(Refused::sent(error)),
            End::Unknown(error) => match lost(&error, &asked, host, true) {
                Some(answer) => {
                    metrics.session(SessionEvent::AnsweredLost);
                    instead(answer)
                }
                None => Err(Refused::sent(error)),
            },
            End::Gone(..) | End::Unavailable | End::TooLarge => {
                let Some(answer) = mcp::in_servers_place(&asked, host, mcp::call_not_run) else {
                    return instead(no_session());
                };
                metrics.session(SessionEvent::Lost("no_server"));
                instead(Instead::Answer(answer))
            }
        }
    }
}
