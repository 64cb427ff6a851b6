//! Whether the server whose stream broke off is gone: its endpoint is none any more, or cannot be dialled.
//!
//! Sends nothing, and says nothing of what becomes of the stream.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use crate::route::Route;
use crate::upstream::{Endpoint, Want};

/// A server that ends may take this long from its first connection to its last.
const ENDING: Duration = Duration::from_millis(100);
/// A dial that takes longer has failed; the kernel asks a second time after one second.
const MAX_DIAL: Duration = Duration::from_millis(1500);

/// Asks in a task of its own, which ends with who waits for it.
pub(super) fn ask(route: &Arc<Route>, endpoint: &Arc<Endpoint>) -> AbortOnDropHandle<bool> {
    let (route, endpoint) = (Arc::clone(route), Arc::clone(endpoint));
    AbortOnDropHandle::new(tokio::spawn(async move {
        tokio::time::sleep(ENDING).await;
        if route.cluster.is_retired() {
            // Its endpoints may be those of another route by now.
            return false;
        }
        if route.cluster.pick(Want::Pinned(&endpoint.id()), &[]).is_none() {
            return true;
        }
        let limit = route.config.to.timeouts.connect.min(MAX_DIAL);
        endpoint.dial(false, limit).await.is_err()
    }))
}
