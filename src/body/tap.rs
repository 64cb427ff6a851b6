//! What watches the bytes of a body as they pass: remembers what may be needed again, and reads which calls they are.
//!
//! Sees each byte once and changes none. Never knows whether the body has ended or broken off, nor who
//! reads what is remembered.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::replay::Replay;
use super::seen::SeenCalls;
use crate::protocol::calls::Call;

/// The observer of one body's bytes; [`Tap::default`] watches for nothing.
#[derive(Debug, Default)]
pub struct Tap {
    /// Bytes to come may be remembered: most bytes of a long body pass without the lock.
    listens: AtomicBool,
    replay: Mutex<Option<Replay>>,
    /// Calls may come.
    scans: AtomicBool,
    calls: Mutex<SeenCalls>,
}

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing.
    Nothing,
    /// Bytes are remembered.
    Bytes,
    /// They are, and calls are read.
    Calls,
}

// === impl Tap ===

impl Tap {
    /// Watches a body of which this length has been announced.
    #[must_use]
    pub fn new(watch: Watch, length: Option<u64>) -> Self {
        if watch == Watch::Nothing {
            return Self::default();
        }
        Self {
            listens: AtomicBool::new(true),
            replay: Mutex::new(Some(Replay::expecting(length))),
            scans: AtomicBool::new(watch == Watch::Calls),
            calls: Mutex::default(),
        }
    }

    /// The next bytes pass.
    pub fn data(&self, data: &Bytes) {
        if self.scans.load(Ordering::Relaxed) && !self.calls().feed(data) {
            self.scans.store(false, Ordering::Relaxed);
        }
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

    /// Looks at the first call that has come whole and that nobody has taken yet.
    pub fn first_call<T>(&self, look: impl FnOnce(&Call) -> T) -> Option<T> {
        self.calls().first().map(look)
    }

    /// Takes the calls that have come whole and that nobody has taken yet. Returns how many have come behind those that
    /// can be taken, and whether no other call can come.
    pub fn take_calls(&self, take: impl FnMut(Call)) -> (u64, bool) {
        let mut calls = self.calls();
        calls.take(take);
        (calls.beyond(), !self.scans.load(Ordering::Relaxed))
    }

    /// Whether the body has said which calls it makes: its messages have come, all of them.
    #[must_use]
    pub fn has_said_all(&self) -> bool {
        self.calls().is_whole()
    }

    /// Forgets everything that is remembered, and remembers nothing more.
    pub fn forget(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Replay> {
        self.listens.store(false, Ordering::Relaxed);
        self.lock().take()
    }

    fn calls(&self) -> MutexGuard<'_, SeenCalls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
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
            let tap = Tap::new(Watch::Bytes, None);
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
    fn calls_are_read_though_their_bytes_are_forgotten() {
        let tap = Tap::new(Watch::Calls, None);
        let seen = || {
            let mut all = Vec::new();
            let (_, all_here) = tap.take_calls(|call| all.push(call.method.as_str().to_owned()));
            assert_eq!(all_here, !tap.scans.load(Ordering::Relaxed));
            all
        };
        tap.data(&Bytes::from_static(b"{\"method\":\"ping\""));
        tap.forget();
        assert_eq!(seen(), [""; 0]);
        tap.data(&Bytes::from_static(b",\"id\":1}"));
        assert_eq!(tap.first_call(|call| call.id.is_some()), Some(true));
        assert!(!tap.scans.load(Ordering::Relaxed));
        assert_eq!(seen(), ["ping"]);
        assert_eq!(seen(), [""; 0], "once");
        assert_eq!(tap.first_call(|_| ()), None);
    }

    #[test]
    fn the_lock_is_not_taken_for_what_nobody_will_need() {
        let tap = Tap::new(Watch::Bytes, None);
        let chunk = Bytes::from(vec![0; MAX_REPLAY]);
        tap.data(&chunk);
        assert!(tap.listens.load(Ordering::Relaxed));
        tap.data(&chunk);
        assert!(!tap.listens.load(Ordering::Relaxed));
        assert_eq!((tap.whole(), tap.take_start()), (None, Some(chunk.slice(..MAX_PEEK))));
    }
}
