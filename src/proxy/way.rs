//! Where a request goes, by one table.
//!
//! Plain data: what resolving found, for everything that depends on the route.

use std::sync::Arc;

use crate::route::{ObjectId, Route, RouteTable};

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Way {
    /// The snapshot it was found in, for everything else that is asked about this request.
    pub table: Arc<RouteTable>,
    /// Where it leads.
    pub route: Arc<Route>,
    /// The query of the tool server's URL, which kagent drops.
    pub query: Option<Arc<str>>,
    /// The Agent that sends it, where its address names one.
    pub caller: Option<ObjectId>,
}
