//! A connection to where a session lives, by what is known of that at this moment.
//!
//! Looks once more where nothing lives there; begins no session anew.

use super::dial;
use super::session::SessionDelivery;
use super::trip::{Cause, Trip};
use crate::proxy::call::Kind;
use crate::proxy::way::InSession;
use crate::upstream::Lease;

// === impl SessionDelivery ===

impl SessionDelivery {
    /// A connection to where the session lives.
    pub(super) async fn home(&self, trip: &mut Trip, fresh: bool) -> Result<Lease, Cause> {
        // A ticket of this moment was looked up there, and its way too.
        if !std::mem::take(&mut trip.is_new) {
            self.reviver.follow(trip);
            if let Some(home) = self.reviver.sessions.homes.of(trip.ticket.id)
                && home.since > trip.ticket.home.since
            {
                trip.ticket.home = home;
            }
        }
        trip.way.session = Some(Box::new(InSession {
            token: trip.facts.session.clone(),
            server_id: trip.ticket.home.id.clone(),
            id: trip.ticket.id,
            since: trip.ticket.home.since,
            again: None,
            resumes: None,
        }));
        let how = (fresh, trip.facts.kind == Kind::Upgrade);
        match dial::pinned(&trip.way.route, &trip.ticket.home.endpoint, how).await {
            // Boxed, as waiting is.
            Err(Cause::PodGone) => Box::pin(self.home_by_now(trip, how)).await,
            leased => leased,
        }
    }

    /// The same by the table of this moment; another replica may have begun the session there just now.
    async fn home_by_now(&self, trip: &mut Trip, how: (bool, bool)) -> Result<Lease, Cause> {
        if trip.ticket.is_young() {
            self.reviver.learn(trip).await;
        } else {
            self.reviver.follow(trip);
        }
        dial::pinned(&trip.way.route, &trip.ticket.home.endpoint, how).await
    }
}
