//! The one way of log lines to their output: a bounded queue in front of one thread that writes.
//!
//! Whoever logs never waits for the reader of the log, and never fails because of it. What finds no
//! room, and what cannot be written, is dropped and counted. Knows bytes, never what they say.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines gather this long before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that may wait for a reader that does not read. As many again may be under way to it.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// Bytes of an empty buffer that are kept for the lines to come.
const KEPT: usize = 256 * 1024;

/// The log of the process; there is one standard error.
static STANDARD_ERROR: Mutex<Option<Log>> = Mutex::new(None);

/// Takes lines from any thread. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Log(Arc<Queue>);

/// Lines that never reached the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The queue was full, because nobody reads.
    pub queue_full: u64,
    /// The output refused them: a full disk, a reader that is gone.
    pub write_failed: u64,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    filled: Condvar,
    /// Nothing waits, and nothing is being written.
    idle: Condvar,
    queue_full: AtomicU64,
    write_failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    writing: bool,
}

/// The output, and how it was left.
struct Output<W> {
    to: W,
    /// The last line went out in part.
    torn: bool,
}

// === impl Log ===

impl Log {
    /// The log to standard error; its thread is started by the first call.
    ///
    /// # Errors
    /// When the system gives no thread or no file descriptor.
    pub fn standard_error() -> io::Result<Self> {
        let mut started = STANDARD_ERROR.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = &*started {
            return Ok(log.clone());
        }
        // A file descriptor of its own: the lock of the library's stderr would be held while a write waits.
        let log = Self::start(File::from(io::stderr().as_fd().try_clone_to_owned()?))?;
        *started = Some(log.clone());
        Ok(log)
    }

    /// Starts the thread that writes to `output`. It ends with the process.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let for_thread = Arc::clone(&queue);
        let output = Output { to: output, torn: false };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || for_thread.write_to(output))?;
        Ok(Self(queue))
    }

    /// Takes a whole line, with the line feed at its end, or drops and counts it.
    pub fn push(&self, line: &[u8]) {
        self.0.push(line);
    }

    /// Waits until everything taken is written or dropped, at most so long. Returns whether it is.
    #[must_use]
    pub fn flush(&self, within: Duration) -> bool {
        let waiting = self.0.lock();
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        let left = self.0.idle.wait_timeout_while(waiting, within, busy);
        !left.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What has been dropped since the start.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        Dropped {
            queue_full: self.0.queue_full.load(Ordering::Relaxed),
            write_failed: self.0.write_failed.load(Ordering::Relaxed),
        }
    }
}

/// What the log to standard error has dropped; nothing, if none was started.
#[must_use]
pub fn dropped() -> Dropped {
    started().map(|log| log.dropped()).unwrap_or_default()
}

/// Waits at most so long for the log to standard error, if one was started.
pub fn flush(within: Duration) {
    if let Some(log) = started() {
        let _nobody_is_left_to_tell = log.flush(within);
    }
}

fn started() -> Option<Log> {
    STANDARD_ERROR.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// For the general log: it hands over each event as one piece.
impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Write for &Log {
    /// Never fails: the general log would complain on standard error, and panic where it cannot.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

// === impl Queue ===

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.lines.len() + line.len() > MAX_WAITING {
            drop(waiting);
            self.queue_full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn write_to(&self, mut output: Output<impl Write>) {
        let mut lines = Vec::new();
        let mut said = 0;
        loop {
            self.next(&mut lines);
            let lost = output.write(&lines);
            self.write_failed.fetch_add(lost, Ordering::Relaxed);
            let queue_full = self.queue_full.load(Ordering::Relaxed);
            let dropped = queue_full + self.write_failed.load(Ordering::Relaxed);
            // Said once it can be read again; into the queue, as every event.
            if lost == 0 && dropped > said {
                tracing::warn!(
                    lines = dropped - said,
                    "log lines were dropped: standard error was not read, or could not be written"
                );
                said = dropped;
            }
            lines.clear();
            lines.shrink_to(KEPT);
            self.lock().writing = false;
            self.idle.notify_all();
            std::thread::sleep(GATHER);
        }
    }

    /// Waits for lines, and takes all that are there.
    fn next(&self, lines: &mut Vec<u8>) {
        let waiting = self.lock();
        let waiting = self.filled.wait_while(waiting, |waiting| waiting.lines.is_empty());
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(lines, &mut waiting.lines);
        waiting.writing = true;
    }

    /// A poisoned lock only means that another thread panicked between two plain stores.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Output ===

impl<W: Write> Output<W> {
    /// Writes all of it if it can; returns how many lines did not get out whole.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.torn && self.put(b"\n").is_err() {
            return count(lines);
        }
        self.torn = false;
        let Err(left) = self.put(lines) else { return 0 };
        let written = lines.get(..lines.len() - left).unwrap_or_default();
        self.torn = written.last().is_some_and(|last| *last != b'\n');
        count(lines.get(written.len()..).unwrap_or_default())
    }

    /// Writes it; where the output refuses, the number of bytes that are left is the error.
    fn put(&mut self, mut bytes: &[u8]) -> Result<(), usize> {
        while !bytes.is_empty() {
            match self.to.write(bytes) {
                Ok(0) => return Err(bytes.len()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Somebody made the pipe so that it does not wait; this thread may.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(GATHER),
                Err(_) => return Err(bytes.len()),
            }
        }
        Ok(())
    }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests;
