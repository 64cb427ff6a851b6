//! Opening an event stream again that its backend has left: how it is done, how often it was, and how soon it is next.
//!
//! Keeps times and counts; opens nothing and knows no bytes.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Pauses;
use crate::proxy::way::Again;

/// A stream that ends sooner, without an event, is opened again after longer and longer pauses.
const BRIEF: Duration = Duration::from_secs(1);
const PAUSES: Pauses = Pauses::new(Duration::from_millis(50), Duration::from_secs(5));

/// How a stream is opened again, and how that went.
#[derive(Debug)]
pub(super) struct Reopens {
    pub(super) again: Again,
    /// When the one that is there was opened, and the events by then.
    pub(super) opened: Instant,
    heard: u64,
    /// How often it was opened again.
    pub(super) tries: u32,
    pauses: Pauses,
}

// === impl Reopens ===

impl Reopens {
    pub(super) fn new(again: Again, opened: Instant) -> Box<Self> {
        Box::new(Self { again, opened, heard: 0, tries: 0, pauses: PAUSES })
    }

    /// It is to be opened once more, so many events having come by now: after how long. One that says nothing and ends
    /// at once is asked less and less often.
    pub(super) fn wait(&mut self, said: u64) -> Duration {
        let lasted = Instant::now().saturating_duration_since(self.opened);
        let brief = lasted < BRIEF && said == self.heard;
        if !brief {
            self.pauses = PAUSES;
        }
        (self.heard, self.tries) = (said, self.tries + 1);
        if brief { self.pauses.take() } else { Duration::ZERO }
    }
}
