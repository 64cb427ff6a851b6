//! What watches the bytes of a body as they pass, and remembers what may be needed again.
//!
//! Sees each byte once and changes none. Never knows whether the body has ended or broken off, nor who
//! reads what is remembered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::replay::Replay;

/// The observer of one body's bytes. Without a length to expect ([`Tap::default`]) it remembers nothing.
#[derive(Debug, Default)]
pub struct Tap {
    /// Bytes to come may be remembered: most bytes of a long body pass without the lock.
    listens: AtomicBool,
    replay: Mutex<Option<Replay>>,
}

// === impl Tap ===

impl Tap {
    /// Remembers a body of which this length has been announced.
    #[must_use]
    pub fn remembering(length: Option<u64>) -> Self {
        let replay = Mutex::new(Some(Replay::expecting(length)));
        Self { listens: AtomicBool::new(true), replay }
    }

    /// The next bytes pass.
    pub fn data(&self, data: &Bytes) {
        if !self.listens.load(Ordering::Relaxed) {
            return;
        }
        if let Some(replay) = self.lock().as_mut() {
            replay.push(data);
            if !replay.wants_more() {
                self.listens.store(false, Ordering::Relaxed);
            }
        }
    }

    /// Whether bytes to come may be remembered.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listens.load(Ordering::Relaxed)
    }

    /// Remembers no more than what an error may need, however large the body is.
    pub fn keep_start(&self) {
        if self.listens.load(Ordering::Relaxed)
            && let Some(replay) = self.lock().as_mut()
        {
            replay.keep_start();
        }
    }

    /// Whether the start is to be remembered and is not whole yet.
    #[must_use]
    pub fn wants_start(&self) -> bool {
        self.lock().as_ref().is_some_and(Replay::wants_start)
    }

    /// Everything that has passed if nothing was left out, else the first bytes; they stay remembered. Empty if they
    /// are forgotten.
    #[must_use]
    pub fn all(&self) -> Bytes {
        self.whole().or_else(|| self.start()).unwrap_or_default()
    }

    /// The first bytes; they stay remembered.
    #[must_use]
    pub fn start(&self) -> Option<Bytes> {
        self.lock().as_ref().map(Replay::start)
    }

    /// The first bytes; everything is forgotten by this.
    #[must_use]
    pub fn take_start(&self) -> Option<Bytes> {
        self.take().map(|replay| replay.start())
    }

    /// Everything that has passed, if nothing was left out; it stays remembered.
    #[must_use]
    pub fn whole(&self) -> Option<Bytes> {
        self.lock().as_mut()?.whole()
    }

    /// Looks at the piece that came first; it is empty if nothing is remembered.
    pub fn peek<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        match self.lock().as_ref() {
            Some(replay) => look(replay.first()),
            None => look(&[]),
        }
    }

    /// Forgets everything, and remembers nothing more.
    pub fn forget(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Replay> {
        self.listens.store(false, Ordering::Relaxed);
        self.lock().take()
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Option<Replay>> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::replay::{MAX_PEEK, MAX_REPLAY};
    use super::*;

    const CALL: Bytes = Bytes::from_static(b"{\"id\":7}");

    #[test]
    fn what_is_not_to_be_remembered_is_not() {
        let tap = Tap::default();
        tap.data(&CALL);
        assert!(!tap.wants_start());
        assert_eq!((tap.whole(), tap.take_start()), (None, None));
    }

    #[test]
    fn what_passed_is_there_until_it_is_taken_or_forgotten() {
        for taken in [true, false] {
            let tap = Tap::remembering(None);
            tap.data(&CALL);
            assert!(tap.wants_start());
            assert_eq!(tap.whole(), Some(CALL));
            assert_eq!(tap.whole(), Some(CALL), "it stays");
            if taken {
                assert_eq!(tap.take_start(), Some(CALL));
            } else {
                tap.forget();
            }
            tap.data(&CALL);
            assert_eq!((tap.whole(), tap.take_start()), (None, None));
        }
    }

    #[test]
    fn the_lock_is_not_taken_for_what_nobody_will_need() {
        let tap = Tap::remembering(None);
        let chunk = Bytes::from(vec![0; MAX_REPLAY]);
        tap.data(&chunk);
        assert!(tap.listens.load(Ordering::Relaxed));
        tap.data(&chunk);
        assert!(!tap.listens.load(Ordering::Relaxed));
        assert_eq!((tap.whole(), tap.take_start()), (None, Some(chunk.slice(..MAX_PEEK))));
    }
}
