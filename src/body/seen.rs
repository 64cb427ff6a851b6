//! The calls of a body, read while its bytes pass.
//!
//! Most bodies come in one piece and have one call: that takes no room besides its name. Never knows what is done
//! with the calls.

use crate::protocol::calls::{Call, CallScanner};

/// The calls of one body, as far as it has come.
#[derive(Debug, Default)]
pub struct SeenCalls {
    scan: Scan,
    first: Option<Call>,
    more: Vec<Call>,
    beyond: u64,
}

/// How far the body has been read.
#[derive(Debug, Default)]
enum Scan {
    /// It has not begun.
    #[default]
    Before,
    /// It is within this.
    Within(Box<CallScanner>),
    /// Nothing else can come; whether it had messages.
    Behind(bool),
}

// === impl SeenCalls ===

impl SeenCalls {
    /// The next bytes pass. Whether those behind matter.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        let Self { scan, first, more, beyond } = self;
        let mut show = |call| match first {
            None => *first = Some(call),
            Some(_) => more.push(call),
        };
        match scan {
            Scan::Before => {
                let mut scanner = CallScanner::default();
                scanner.feed(bytes, &mut show);
                *beyond = scanner.beyond();
                *scan = match scanner.is_done() {
                    true => Scan::Behind(scanner.has_messages()),
                    false => Scan::Within(Box::new(scanner)),
                };
            }
            Scan::Within(scanner) => {
                scanner.feed(bytes, &mut show);
                *beyond = scanner.beyond();
                if scanner.is_done() {
                    *scan = Scan::Behind(scanner.has_messages());
                }
            }
            Scan::Behind(_) => {}
        }
        !matches!(scan, Scan::Behind(_))
    }

    /// Whether its messages have come, all of them.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.scan, Scan::Behind(true))
    }

    /// The first one, unless it was taken.
    #[must_use]
    pub const fn first(&self) -> Option<&Call> {
        self.first.as_ref()
    }

    /// How many calls have come behind those that are read one by one (see [`CallScanner::beyond`]).
    #[must_use]
    pub const fn beyond(&self) -> u64 {
        self.beyond
    }

    /// The calls that nobody has taken yet.
    pub fn take(&mut self, mut show: impl FnMut(Call)) {
        self.first.take().into_iter().for_each(&mut show);
        self.more.drain(..).for_each(show);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(seen: &mut SeenCalls) -> Vec<String> {
        let mut all = Vec::new();
        seen.take(|call| all.push(call.method.as_str().to_owned()));
        all
    }

    #[test]
    fn each_call_is_taken_once_wherever_the_body_is_split() {
        let body = br#"[{"id":1,"method":"ping"},{"id":2,"method":"tools/list"}]"#;
        for at in 0..=body.len() {
            let mut seen = SeenCalls::default();
            assert!(seen.feed(&body[..at]) || at == body.len());
            let mut all = taken(&mut seen);
            assert!(!seen.feed(&body[at..]));
            all.extend(taken(&mut seen));
            assert_eq!(all, ["ping", "tools/list"], "split at {at}");
            assert!(!seen.feed(b"{\"method\":\"ping\"}") && taken(&mut seen).is_empty());
        }
    }
}
