//! Where a request goes, by one table.
//!
//! Plain data: what resolving found, for everything that depends on the route.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response};
use tokio_util::task::AbortOnDropHandle;

use crate::route::{ObjectId, Route, RouteTable};
use crate::session::homes::Slot;
use crate::upstream::Leased;
use crate::workers::near::Near;

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Way {
    /// The snapshot it was found in, for everything else that is asked about this request.
    pub table: Near<RouteTable>,
    /// Where it leads.
    pub route: Arc<Route>,
    /// The query of the tool server's URL, which kagent drops.
    pub query: Option<Arc<str>>,
    /// The Agent that sends it, where its address names one.
    pub caller: Option<ObjectId>,
    /// The session it belongs to, if the proxy looks after that.
    pub session: Option<Box<InSession>>,
}

/// What a session is called on both sides of the proxy.
#[derive(Clone, Debug)]
pub struct InSession {
    /// By the client, for the session's whole life; `None` for a legacy one, which has it in a URL.
    pub token: Option<HeaderValue>,
    /// By its server; `None` if that has no name for it.
    pub server_id: Option<HeaderValue>,
    /// How the stream that answers the request is opened again, if it may be.
    pub again: Option<Again>,
}

/// An event stream that is being opened again; `None` if it cannot be.
pub type Reopening = AbortOnDropHandle<Option<(Response<Leased>, Way)>>;

/// How an event stream is opened again whose backend has left it.
#[derive(Clone)]
pub struct Again {
    /// With the body of its response, after a pause, and with whether it has broken off.
    pub open: Arc<dyn Fn(Leased, Duration, bool) -> Reopening + Send + Sync>,
    /// Of a session's own stream: where the session lives, which the stream follows.
    pub home: Option<Arc<Slot>>,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}
