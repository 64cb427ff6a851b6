//! Every call that has ended, for whoever looks on at the moment; nothing is made where nobody does.
//!
//! Those who read too slowly miss some, and are told how many; requests never wait. Knows no listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast::{self, Receiver, Sender};

use super::operations::ErrorType;
use crate::protocol::methods::Protocol;

/// Calls that wait for a slow reader; the oldest of more are missed.
const WAITING: usize = 1024;

/// One call that has ended, as it was sent: also what is counted as `other`.
#[derive(Clone, Debug)]
pub struct FinishedCall {
    /// When it ended.
    pub at: SystemTime,
    /// The route's host.
    pub route: Box<str>,
    /// The Agent that made it, `namespace/name`, or `unknown`.
    pub caller: Arc<str>,
    /// What was spoken.
    pub protocol: Protocol,
    /// The method as it was sent, cut.
    pub method: Box<str>,
    /// The tool or prompt as it was sent, cut; empty if there is none.
    pub tool: Box<str>,
    /// How it ended.
    pub error: ErrorType,
    /// The status of HTTP; 0 if there was none.
    pub status: u16,
    /// From the request's arrival to the call's end.
    pub took: Duration,
    /// The client's address.
    pub peer: Box<str>,
    /// The request's path.
    pub path: Box<str>,
    /// What its session is called in logs.
    pub session: Option<u32>,
    /// The conversation that it belongs to (`x-kagent-root-context-id`); empty if it says none.
    pub conversation: Box<str>,
    /// The trace that it belongs to; empty if it says none.
    pub trace: Box<str>,
}

/// Where calls are shown.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sender: Sender<Arc<FinishedCall>>,
    /// Requests ask this; the channel's own count is behind a lock.
    viewers: AtomicUsize,
}

/// One who looks on.
#[derive(Debug)]
pub struct Viewer {
    /// The calls from now on.
    pub calls: Receiver<Arc<FinishedCall>>,
    feed: Feed,
}

// === impl Feed ===

impl Default for Feed {
    fn default() -> Self {
        let (sender, _) = broadcast::channel(WAITING);
        Self(Arc::new(Shared { sender, viewers: AtomicUsize::new(0) }))
    }
}

impl Feed {
    /// Shows a call, if somebody looks on.
    pub fn show(&self, call: impl FnOnce() -> FinishedCall) {
        if self.0.viewers.load(Ordering::Relaxed) > 0 {
            let _nobody_any_more = self.0.sender.send(Arc::new(call()));
        }
    }

    /// Looks on, until it is dropped.
    #[must_use]
    pub fn watch(&self) -> Viewer {
        self.0.viewers.fetch_add(1, Ordering::Relaxed);
        Viewer { calls: self.0.sender.subscribe(), feed: self.clone() }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.feed.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::RecvError;

    use super::*;

    fn call(status: u16) -> FinishedCall {
        let empty = || Box::<str>::default();
        FinishedCall {
            at: SystemTime::UNIX_EPOCH,
            route: empty(),
            caller: "a/b".into(),
            protocol: Protocol::Mcp,
            method: empty(),
            tool: empty(),
            error: ErrorType::None,
            status,
            took: Duration::ZERO,
            peer: empty(),
            path: empty(),
            session: None,
            conversation: empty(),
            trace: empty(),
        }
    }

    #[tokio::test]
    async fn a_viewer_sees_what_comes_from_then_on_and_nothing_is_made_without_one() {
        let feed = Feed::default();
        feed.show(|| panic!("nobody looks on"));
        let mut viewer = feed.watch();
        feed.show(|| call(1));
        assert_eq!(viewer.calls.recv().await.unwrap().status, 1);
        drop(viewer);
        feed.show(|| panic!("nobody looks on any more"));
    }

    #[tokio::test]
    async fn a_slow_viewer_is_told_how_many_it_has_missed() {
        let feed = Feed::default();
        let mut viewer = feed.watch();
        for _ in 0..WAITING + 7 {
            feed.show(|| call(2));
        }
        assert_eq!(viewer.calls.recv().await.unwrap_err(), RecvError::Lagged(7));
        assert_eq!(viewer.calls.recv().await.unwrap().status, 2);
    }
}
