//! Panics: counted, and logged with their place by the way of every other line.
//!
//! Ends no panic and catches none. Knows nothing of requests.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};

static PANICS: AtomicU64 = AtomicU64::new(0);

/// From here on a panic of any thread is counted and logged, instead of printed. The library's own
/// hook writes to standard error itself, and would wait for its reader.
pub fn observe() {
    std::panic::set_hook(Box::new(note));
}

/// Panics of the process since [`observe`].
#[must_use]
pub fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

fn note(panic: &PanicHookInfo<'_>) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or("not a text");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    // Only where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(place, reason, thread, %backtrace, "panic");
    } else {
        tracing::error!(place, reason, thread, "panic");
    }
}
