//! Where a request goes, by one table.
//!
//! Plain data: what resolving found, for everything that depends on the route.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Response};
use tokio_util::task::AbortOnDropHandle;

use crate::route::{Caller, Route, RouteTable};
use crate::session::homes::Slot;
use crate::session::token::TokenId;
use crate::session::unanswered::Call;
use crate::upstream::Leased;
use crate::workers::near::Near;

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Way {
    /// The snapshot it was found in, for everything else that is asked about this request.
    pub table: Near<RouteTable>,
    /// Where it leads.
    pub route: Near<Route>,
    /// The query of the tool server's URL, which kagent drops.
    pub query: Option<Arc<str>>,
    /// The Agent that sends it, where its address names one.
    pub caller: Option<Near<Caller>>,
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
    /// By the proxy.
    pub id: TokenId,
    /// When it moved to where the request was sent (milliseconds since 1970; 0 if it was born there).
    pub since: u64,
    /// How the stream that answers the request is opened again, if it may be.
    pub again: Option<Again>,
    /// The call whose stream the request asks for the rest of.
    pub resumes: Option<Call>,
}

/// An event stream that is being opened again; `None` if it cannot be.
pub type Reopening = AbortOnDropHandle<Option<Reopened>>;

/// An event stream that was opened again.
#[derive(Debug)]
pub struct Reopened {
    /// With its backend's stream.
    pub response: Response<Leased>,
    /// The way that its request was sent.
    pub way: Way,
    /// Its session was begun anew for it.
    pub revived: bool,
}

/// An event stream whose backend has left it.
#[derive(Debug)]
pub struct Left {
    /// What is left of its response.
    pub leased: Leased,
    /// How long it takes no notice of that.
    pub pause: Duration,
    /// Where its session lived, as in [`InSession::since`]: ids of events are known only there.
    pub since: u64,
    /// The id of its last event, empty if that has none any more; `None` if no event had one.
    pub last_event: Option<HeaderValue>,
}

/// How an event stream is opened again whose backend has left it.
#[derive(Clone)]
pub struct Again {
    /// Opens it.
    pub open: Arc<dyn Fn(Left) -> Reopening + Send + Sync>,
    /// Of a session's own stream: where the session lives, which the stream follows.
    pub home: Option<Arc<Slot>>,
    /// Where its session lived when it was opened last, as in [`InSession::since`].
    pub since: u64,
}

impl std::fmt::Debug for Again {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Again").finish_non_exhaustive()
    }
}
