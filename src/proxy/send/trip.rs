//! One request of a session on its way, and why the session may have to move.
//!
//! Data, shared by what carries the request and what begins the session anew.

use std::sync::Arc;

use tokio::time::Instant;

use crate::proxy::instead::Care;
use crate::proxy::request::conn::Connection;
use crate::proxy::request::facts::Facts;
use crate::proxy::way::Way;
use crate::session::Ticket;
use crate::telemetry::metrics::Counted;

/// Why a session's server is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its endpoint is none any more.
    PodGone,
    /// It cannot be dialled, or closes each connection.
    Unreachable,
    /// It does not know the session.
    Forgotten,
    /// We have no descriptor or port to dial it with: the session lives.
    OurOwn,
}

/// One request of a session on its way.
#[derive(Clone, Debug)]
pub struct Trip {
    /// The client.
    pub conn: Arc<Connection>,
    /// What the request says.
    pub facts: Arc<Facts>,
    /// Where it goes.
    pub way: Way,
    /// Its session.
    pub ticket: Box<Ticket>,
    /// When it arrived.
    pub started: Instant,
    /// What has been done for the session.
    pub care: Care,
    /// Its ticket has just been made.
    pub is_new: bool,
    /// It opens a stream anew that was there before.
    pub was_open: bool,
    /// Its `Last-Event-ID` is known only where the session has lived since then; `None` is wherever it lives.
    pub behind: Option<u64>,
}

// === impl Trip ===

impl Trip {
    /// The request is about to be sent once more.
    pub fn replay(&mut self) {
        self.way.route.metrics.add(Counted::Retries, 1);
        if self.care == Care::None {
            self.care = Care::Replayed;
        }
    }
}

// === impl Cause ===

impl Cause {
    /// The word of the metric.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::PodGone => "pod_gone",
            Self::Unreachable => "unreachable",
            Self::Forgotten => "forgotten",
            Self::OurOwn => "our_own",
        }
    }
}
