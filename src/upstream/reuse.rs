//! For how long an idle connection may be used again: learned from what the endpoint does.
//!
//! A connection that is reused while its backend closes it loses a request, so the start is below the 5 s of
//! uvicorn, and more is allowed only where the endpoint was seen to keep a connection longer. The clock is passed
//! in as ages. Knows no connection.

use std::time::Duration;

/// Distance to what was seen or announced: covers the way of a FIN and the time between two looks.
const MARGIN: Duration = Duration::from_secs(1);

/// What is known of one endpoint.
#[derive(Clone, Debug)]
pub struct Reuse {
    learned: Duration,
    longest: Duration,
    announced: Option<Duration>,
}

// === impl Reuse ===

impl Reuse {
    /// Begins with `start`, and may learn up to `longest`.
    #[must_use]
    pub fn new(start: Duration, longest: Duration) -> Self {
        Self { learned: start, longest: longest.max(start), announced: None }
    }

    /// The age up to which an idle connection may be used.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.announced.map_or(self.learned, |announced| announced.min(self.learned))
    }

    /// The age up to which an idle connection is kept, used or not, so that something can be learned.
    #[must_use]
    pub fn keep(&self) -> Duration {
        self.longest + MARGIN
    }

    /// A connection of this idle age is still open.
    pub fn seen_open(&mut self, age: Duration) {
        let safe = age.saturating_sub(MARGIN).min(self.longest);
        self.learned = self.learned.max(safe);
    }

    /// A connection was found closed by the backend at this idle age, looked at last `before` that.
    pub fn seen_closed(&mut self, age: Duration, before: Duration) {
        let safe = age.saturating_sub(before).saturating_sub(MARGIN / 2);
        self.learned = self.learned.min(safe);
    }

    /// The backend said `Keep-Alive: timeout=` (RFC 2068 section 19.7.1.1); it only ever lowers.
    pub fn announced(&mut self, timeout: Duration) {
        self.announced = Some(timeout.saturating_sub(MARGIN));
    }
}

/// The timeout in a `Keep-Alive` field.
#[must_use]
pub fn keep_alive_timeout(value: &str) -> Option<Duration> {
    value.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let timeout = name.trim().eq_ignore_ascii_case("timeout");
        timeout.then(|| value.trim().trim_matches('"').parse().ok().map(Duration::from_secs))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn nothing_is_reused_longer_than_the_start_until_more_was_seen() {
        let mut reuse = Reuse::new(4 * S, 55 * S);
        assert_eq!(reuse.limit(), 4 * S);
        reuse.seen_open(3 * S);
        reuse.seen_open(5 * S);
        assert_eq!(reuse.limit(), 4 * S);
        reuse.seen_open(9 * S);
        assert_eq!(reuse.limit(), 8 * S);
        reuse.seen_open(900 * S);
        assert_eq!(reuse.limit(), 55 * S);
    }

    #[test]
    fn a_close_lowers_it_below_what_was_seen() {
        let mut reuse = Reuse::new(4 * S, 55 * S);
        reuse.seen_closed(5 * S, S / 2);
        assert_eq!(reuse.limit(), 4 * S, "uvicorn's 5 s leave the start as it is");
        reuse.seen_closed(2 * S, S / 2);
        assert_eq!(reuse.limit(), S);
        reuse.seen_closed(S / 10, S / 2);
        assert_eq!(reuse.limit(), Duration::ZERO);
        reuse.seen_open(6 * S);
        assert_eq!(reuse.limit(), 5 * S, "a restart is forgotten");
    }

    #[test]
    fn an_announcement_only_lowers() {
        let mut reuse = Reuse::new(4 * S, 55 * S);
        reuse.announced(75 * S);
        assert_eq!(reuse.limit(), 4 * S);
        reuse.announced(3 * S);
        assert_eq!(reuse.limit(), 2 * S);
        reuse.seen_open(20 * S);
        assert_eq!(reuse.limit(), 2 * S);
    }

    #[test]
    fn the_field_is_read_in_every_spelling() {
        for (value, timeout) in [
            ("timeout=5", Some(5 * S)),
            ("timeout=5, max=100", Some(5 * S)),
            ("max=100, Timeout = \"7\"", Some(7 * S)),
            ("timeout=x", None),
            ("max=1", None),
            ("", None),
        ] {
            assert_eq!(keep_alive_timeout(value), timeout, "{value}");
        }
    }
}
