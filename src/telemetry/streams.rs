//! The streams and tunnels of a route that are open: whose each is, and since when.
//!
//! What is open is a note that its request holds; one that has ended is forgotten when somebody looks, or when twice as
//! many have come. Knows no body.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use crate::workers::per_worker::PerWorker;

/// An open stream.
#[derive(Clone, Debug)]
pub struct StreamNote {
    /// When its request arrived.
    pub started: Instant,
    /// The Agent that reads it, `namespace/name`, or `unknown`.
    pub caller: Arc<str>,
    /// The request's path.
    pub path: Box<str>,
    /// What its session is called in logs.
    pub session: Option<u32>,
}

/// The open streams of one route.
#[derive(Debug, Default)]
pub(super) struct Streams(PerWorker<Mutex<Own>>);

#[derive(Debug, Default)]
struct Own {
    notes: Vec<Weak<StreamNote>>,
    /// Were open when somebody looked last.
    before: usize,
}

/// Fewer are never looked through.
const FEW: usize = 64;

// === impl Streams ===

impl Streams {
    /// One more, as long as somebody holds the note.
    pub(super) fn open(&self, note: &Arc<StreamNote>) {
        let mut own = self.0.own().lock().unwrap_or_else(PoisonError::into_inner);
        if own.notes.len() >= FEW.max(2 * own.before) {
            own.forget();
        }
        own.notes.push(Arc::downgrade(note));
    }

    /// Those that are open.
    pub(super) fn all(&self) -> Vec<Arc<StreamNote>> {
        let mut all = Vec::new();
        for own in self.0.iter() {
            let mut own = own.lock().unwrap_or_else(PoisonError::into_inner);
            own.forget();
            all.extend(own.notes.iter().filter_map(Weak::upgrade));
        }
        all
    }

    /// How long the oldest has been open; `None` if there is none.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let first = self.all().iter().map(|note| note.started).min()?;
        Some(Instant::now().saturating_duration_since(first))
    }
}

// === impl Own ===

impl Own {
    fn forget(&mut self) {
        self.notes.retain(|note| note.strong_count() > 0);
        self.before = self.notes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(started: Instant) -> Arc<StreamNote> {
        let (caller, path) = ("a/b".into(), "/mcp".into());
        Arc::new(StreamNote { started, caller, path, session: None })
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_open_as_long_as_its_note_is_held() {
        let streams = Streams::default();
        assert_eq!(streams.oldest(), None);
        let (old, young) = (note(Instant::now()), note(Instant::now() + Duration::from_secs(5)));
        streams.open(&old);
        streams.open(&young);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(streams.oldest(), Some(Duration::from_secs(7)));
        drop(old);
        assert_eq!(streams.all().len(), 1);
        assert_eq!(streams.oldest(), Some(Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn what_has_ended_is_not_kept_though_nobody_looks() {
        let streams = Streams::default();
        for _ in 0..10 * FEW {
            streams.open(&note(Instant::now()));
        }
        let kept: usize = streams.0.iter().map(|own| own.lock().unwrap().notes.len()).sum();
        assert!(kept <= FEW, "{kept}");
    }
}
