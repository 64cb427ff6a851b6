//! How often a session's request is tried, and after which pauses.
//!
//! Decides by counts and the clock alone; sends nothing and waits for nothing.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Pauses;

/// A session is begun anew at most this often for one request.
pub const MAX_MOVES: u32 = 3;
/// How often a request is sent once more on a new connection, and the pauses before all but the first.
pub const MAX_CLOSED: u32 = 3;
const CLOSED_PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_millis(400));
/// The pauses between two tries to open a session's own stream that is still open elsewhere.
const OCCUPIED_PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(1));

/// What has happened to a request so far.
#[derive(Default)]
pub struct Course {
    /// How often it was sent on a new connection.
    pub fresh: u32,
    /// How often its session has moved.
    pub moves: u32,
    /// The session was begun for it just now.
    pub begun: bool,
    /// The pauses since its stream was first found open elsewhere, and until when it waits for that to end.
    occupied: Option<(Pauses, Instant)>,
}

// === impl Course ===

impl Course {
    /// How long to wait before it is sent once more on a new connection.
    #[must_use]
    pub fn until_sent(&self) -> Option<Duration> {
        Some(CLOSED_PAUSES.after(self.fresh.checked_sub(1)?))
    }

    /// How long to wait before the session's own stream is opened once more. Its server has it open already (409):
    /// for a client that is gone without a word, or through a replica that hangs. `None` if that takes longer than
    /// `wait`.
    pub fn until_free(&mut self, wait: Duration) -> Option<Duration> {
        let (pauses, until) =
            self.occupied.get_or_insert_with(|| (OCCUPIED_PAUSES, Instant::now() + wait));
        let pause = pauses.take();
        (Instant::now() + pause < *until).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_until_it_is_free_but_not_for_ever() {
        let began = Instant::now();
        let wait = Duration::from_secs(4);
        let (mut course, mut tries) = (Course::default(), 0);
        while let Some(pause) = course.until_free(wait) {
            tokio::time::advance(pause).await;
            tries += 1;
        }
        // 0.1, 0.2, 0.4, 0.8, 1 and 1 seconds.
        assert_eq!((tries, (Instant::now() - began).as_millis()), (6, 3500));
        assert_eq!(course.until_free(wait), None);
    }

    #[test]
    fn the_first_new_connection_is_tried_at_once() {
        let until_sent = |fresh| Course { fresh, ..Course::default() }.until_sent();
        let millis = [0, 1, 2, 3, 9].map(|fresh| until_sent(fresh).map(|pause| pause.as_millis()));
        assert_eq!(millis, [None, Some(100), Some(200), Some(400), Some(400)]);
    }
}
