//! How far a body has come: bytes, its end, whether it broke off, who is waited for.
//!
//! Facts only, each set once or counted up, read from anywhere without a lock. Never sees a byte.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// What is known of a body's way.
#[derive(Debug, Default)]
pub struct Progress {
    bytes: AtomicU64,
    broken: AtomicBool,
    /// It has passed to its end.
    whole: AtomicBool,
    /// Trailers have passed.
    trailed: AtomicBool,
    /// Nothing more will pass, whole or not.
    over: AtomicBool,
    ended: Notify,
    /// The client has not sent what is asked for.
    waits: AtomicBool,
}

// === impl Progress ===

impl Progress {
    /// Nothing has passed; `whole` if there is nothing to pass.
    #[must_use]
    pub fn new(whole: bool) -> Self {
        Self { whole: AtomicBool::new(whole), ..Self::default() }
    }

    /// Bytes that have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether the client ended it by anything but its end, or wrote what cannot be read.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Whether it has passed to its end, and was nothing but bytes.
    #[must_use]
    pub fn is_plain_and_whole(&self) -> bool {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        is(&self.whole) && !is(&self.trailed) && !is(&self.broken)
    }

    /// Counts bytes, also those that went another way than through the body.
    pub fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Waits until nothing more of the body will pass, and for `limit` more. A client may take its time; a
    /// backend that takes nothing of what the client has sent has this long too, or up to twice that.
    pub async fn overdue(&self, limit: Duration) {
        loop {
            let before = self.bytes();
            tokio::select! {
                () = self.over() => break,
                () = tokio::time::sleep(limit) => {}
            }
            if self.bytes() == before && !self.waits.load(Ordering::Relaxed) {
                return;
            }
        }
        tokio::time::sleep(limit).await;
    }

    /// The client is waited for, or not any more.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    /// The last byte has passed.
    pub(super) fn completed(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Trailers have passed.
    pub(super) fn trailed(&self) {
        self.trailed.store(true, Ordering::Relaxed);
    }

    /// It has broken off.
    pub(super) fn broke(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Nothing more will pass: it has been written to its end, or given up.
    pub fn ended(&self) {
        self.over.store(true, Ordering::Release);
        self.ended.notify_waiters();
    }

    async fn over(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        ended.as_mut().enable();
        if !self.over.load(Ordering::Acquire) {
            ended.await;
        }
    }
}
