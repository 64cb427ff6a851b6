//! Buffers that belong to a worker thread: one to read into, one to write heads into, and room for the fields of one.
//!
//! Taken for the length of one poll and put back. Whoever finds its place empty, in a poll inside another
//! one, gets a fresh one. Knows nothing of what is in them.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use http::HeaderMap;

/// Bytes of one read; larger bodies are read into buffers of their own.
pub(super) const READ: usize = 16 * 1024;
/// A buffer that has grown beyond this is not kept.
const MAX_KEPT: usize = 64 * 1024;
/// Nor is room for more fields.
const MAX_FIELDS: usize = 256;

thread_local! {
    static INPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OUTPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static FIELDS: Cell<Option<HeaderMap>> = const { Cell::new(None) };
}

/// A buffer to read into, of full length.
#[derive(Debug)]
pub(super) struct Input(Vec<u8>);

// === impl Input ===

impl Input {
    pub(super) fn take() -> Self {
        let mut buffer = INPUT.take();
        if buffer.is_empty() {
            buffer = vec![0; READ];
        }
        Self(buffer)
    }
}

impl Deref for Input {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        INPUT.set(std::mem::take(&mut self.0));
    }
}

/// An empty buffer to write into.
pub(super) fn output() -> Vec<u8> {
    OUTPUT.take()
}

/// Puts one back whose bytes have been written.
pub(super) fn written(mut buffer: Vec<u8>) {
    if buffer.capacity() <= MAX_KEPT {
        buffer.clear();
        OUTPUT.set(buffer);
    }
}

/// Empty room for fields.
pub(super) fn fields() -> HeaderMap {
    FIELDS.take().unwrap_or_default()
}

/// Puts back what is not needed, or the room of a head that nobody needs any more.
pub(super) fn let_go(mut fields: HeaderMap) {
    if fields.capacity() <= MAX_FIELDS {
        fields.clear();
        FIELDS.set(Some(fields));
    }
}
