//! The one way of log lines to their output: a bounded queue for each worker, and one thread that writes.
//!
//! Whoever logs never waits for the reader of the log, and never fails because of it. What finds no
//! room, and what cannot be written, is dropped and counted. Lines of one thread keep their order; those of
//! different workers may be as far out of it as lines wait. Knows bytes, never what they say.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

use crate::workers::per_worker::PerWorker;

/// Lines gather this long before they are written together.
const GATHER: Duration = Duration::from_millis(20);
/// Bytes that may wait for a reader that does not read. As many again may be under way to it.
const MAX_WAITING: usize = 8 * 1024 * 1024;
/// What each worker has of them at least: many times what it can say while lines gather.
const MIN_WAITING: usize = 1024 * 1024;
/// Bytes of an empty buffer that are kept for the lines to come.
const KEPT: usize = 256 * 1024;

/// The log of the process; there is one standard error.
static STANDARD_ERROR: Mutex<Option<Log>> = Mutex::new(None);

/// Takes lines from any thread. Clones share the queues.
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
    /// What waits, of each worker.
    lines: PerWorker<Mutex<Vec<u8>>>,
    writer: Mutex<Writer>,
    /// The writer has found nothing to write, and wants to be woken.
    asleep: AtomicBool,
    /// There is something to write.
    filled: Condvar,
    /// Nothing waits, and nothing is being written.
    idle: Condvar,
    queue_full: AtomicU64,
    write_failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Writer {
    /// Lines are taken, or being written.
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
        let busy = |writer: &mut Writer| writer.writing || !self.0.is_empty();
        let left = self.0.idle.wait_timeout_while(self.0.writer(), within, busy);
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
        let mut waiting = lock(self.lines.own());
        if waiting.len() + line.len() > self.room() {
            drop(waiting);
            self.queue_full.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(line);
        drop(waiting);
        // The writer looks at every queue after it has said that it sleeps: one that has seen ours empty has said so
        // before.
        if was_empty && self.asleep.load(Ordering::Relaxed) {
            let _waits_by_now = self.writer();
            self.filled.notify_one();
        }
    }

    /// Bytes that each queue takes.
    fn room(&self) -> usize {
        (MAX_WAITING / (self.lines.workers() + 1)).max(MIN_WAITING)
    }

    fn is_empty(&self) -> bool {
        self.lines.iter().all(|waiting| lock(waiting).is_empty())
    }

    fn write_to(&self, mut output: Output<impl Write>) {
        let (mut lines, mut taken) = (Vec::new(), Vec::new());
        let mut said = 0;
        loop {
            self.next(&mut lines, &mut taken);
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
            self.writer().writing = false;
            self.idle.notify_all();
            std::thread::sleep(GATHER);
        }
    }

    /// Waits for lines, and takes all that are there. `taken` is what they are taken in, to be used again.
    fn next(&self, lines: &mut Vec<u8>, taken: &mut Vec<u8>) {
        let writer = self.writer();
        self.asleep.store(true, Ordering::Relaxed);
        let writer = self.filled.wait_while(writer, |_| self.is_empty());
        let mut writer = writer.unwrap_or_else(PoisonError::into_inner);
        self.asleep.store(false, Ordering::Relaxed);
        writer.writing = true;
        drop(writer);
        for waiting in self.lines.iter() {
            std::mem::swap(taken, &mut lock(waiting));
            if lines.is_empty() {
                std::mem::swap(lines, taken);
            } else {
                lines.append(taken);
            }
            taken.shrink_to(KEPT);
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }
}

/// A poisoned lock only means that another thread panicked between two plain stores.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
