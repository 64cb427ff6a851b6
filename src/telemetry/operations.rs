//! How long calls take, by who makes them, with which method and tool, and how they end: OpenTelemetry's duration of
//! operations of MCP (semantic conventions for MCP, `mcp.client.operation.duration` and its buckets), and the same for
//! A2A.
//!
//! Labels are names that somebody has declared, or `other`; a cap over all routes bounds how many series there are,
//! whoever sends what. Knows nothing of messages.

mod gone;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashTable;
use hashlink::DefaultHashBuilder as QuickHash;

use self::gone::Leaving;
use super::names::{A2A_SECONDS, FINE_BOUNDS, MCP_SECONDS, OPERATION_BOUNDS};
use super::text::{Families, Labels};
use crate::protocol::methods::{OTHER, Protocol};
use crate::workers::per_worker::PerWorker;

/// What a caller is called whose address names no Agent.
pub const UNKNOWN: &str = "unknown";

/// How a call ended, as the label `error_type` says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorType {
    /// With a result.
    #[default]
    None,
    /// With a result that says that the tool has failed.
    Tool,
    /// With a JSON-RPC error of this code.
    Code(i64),
    /// Without an answer in JSON-RPC, by this status of HTTP.
    Status(u16),
    /// Without any: a word of the access log.
    Word(&'static str),
    /// Nobody here knows: its answer came where another replica saw it. No error.
    Unknown,
}

/// One call that has ended, by its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The Agent that made it, `namespace/name`, or [`UNKNOWN`].
    pub caller: &'a str,
    /// What was spoken.
    pub protocol: Protocol,
    /// A method of the specifications, or [`OTHER`].
    pub method: &'static str,
    /// A declared tool, [`OTHER`], or nothing.
    pub tool: &'a str,
    /// How it ended.
    pub error: ErrorType,
}

/// The labels of one series, besides its route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    /// As in [`Operation`].
    pub caller: Box<str>,
    /// As in [`Operation`].
    pub protocol: Protocol,
    /// As in [`Operation`].
    pub method: &'static str,
    /// As in [`Operation`].
    pub tool: Box<str>,
    /// As in [`Operation`].
    pub error: ErrorType,
}

/// Durations that were counted, by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Those between each bound and the one before; the last ones are above all bounds.
    within: [u64; BOUNDS.len() + 1],
    /// Microseconds.
    sum: u64,
}

/// Where a quantile of durations lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// Below the lowest bound: how far, nobody knows.
    Below(Duration),
    /// About here, between two bounds.
    About(Duration),
    /// Above the highest bound.
    Above(Duration),
}

/// How many series there may be, of all routes and workers together.
#[derive(Clone, Debug)]
pub struct SeriesCap(Arc<Cap>);

#[derive(Debug)]
struct Cap {
    used: AtomicUsize,
    most: AtomicUsize,
}

/// The operations of one route.
#[derive(Debug)]
pub(super) struct Operations {
    each: PerWorker<Mutex<Own>>,
    /// Whose series go next. Held by whoever reads those of all workers, so that none goes meanwhile.
    leaving: Mutex<Leaving>,
    cap: SeriesCap,
}

/// Those that one worker has counted.
#[derive(Debug, Default)]
struct Own {
    series: HashTable<(SeriesKey, Durations)>,
    hash: QuickHash,
}

/// The bounds of what is counted: fine ones, and those that series have.
const BOUNDS: [u64; FINE_BOUNDS.len() + OPERATION_BOUNDS.len()] = {
    let [a, b, c, d] = FINE_BOUNDS;
    let [e, f, g, h, i, j, k, l, m, n, o, p, q, r] = OPERATION_BOUNDS;
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r]
};

// === impl Quantile ===

impl Quantile {
    /// Where it lies, or the bound that it lies below or above.
    #[must_use]
    pub const fn time(self) -> Duration {
        match self {
            Self::Below(time) | Self::About(time) | Self::Above(time) => time,
        }
    }

    /// The word of the admin API, where the time is a bound.
    #[must_use]
    pub const fn word(self) -> Option<&'static str> {
        match self {
            Self::Below(_) => Some("below"),
            Self::About(_) => None,
            Self::Above(_) => Some("above"),
        }
    }
}

// === impl SeriesCap ===

impl SeriesCap {
    /// So many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Cap { used: AtomicUsize::new(0), most: AtomicUsize::new(most) }))
    }

    /// From now on so many; those that are there stay.
    pub fn set(&self, most: usize) {
        self.0.most.store(most, Ordering::Relaxed);
    }

    /// Series in use, and how many there may be.
    #[must_use]
    pub fn state(&self) -> (usize, usize) {
        (self.0.used.load(Ordering::Relaxed), self.0.most.load(Ordering::Relaxed))
    }

    /// Whether there is room for one more, which is taken then.
    fn take(&self) -> bool {
        let Cap { used, most } = &*self.0;
        let most = most.load(Ordering::Relaxed);
        let more = |used| (used < most).then_some(used + 1);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self, series: usize) {
        self.0.used.fetch_sub(series, Ordering::Relaxed);
    }
}

// === impl ErrorType ===

impl ErrorType {
    /// Whether something went wrong.
    #[must_use]
    pub fn is_error(self) -> bool {
        !matches!(self, Self::None | Self::Unknown)
    }

    /// For the label: codes beyond those of JSON-RPC 2.0 (section 5.1) are whatever a server likes, and counted
    /// together.
    fn label(self) -> Self {
        match self {
            Self::Code(code) if !(-32_768..=-32_000).contains(&code) => Self::Word(OTHER),
            other => other,
        }
    }

    /// Of what is counted together beyond the cap.
    fn capped(self) -> Self {
        if self.is_error() { Self::Word(OTHER) } else { self }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Tool => f.write_str("tool_error"),
            Self::Code(code) => write!(f, "{code}"),
            Self::Status(status) => write!(f, "{status}"),
            Self::Word(word) => f.write_str(word),
            Self::Unknown => f.write_str(UNKNOWN),
        }
    }
}

// === impl Operations ===

impl Operations {
    pub(super) fn new(cap: SeriesCap) -> Self {
        Self { each: PerWorker::default(), leaving: Mutex::default(), cap }
    }

    /// So many have ended.
    pub(super) fn count(&self, operation: &Operation<'_>, took: Duration, calls: u64) {
        let operation = Operation { error: operation.error.label(), ..*operation };
        let mut own = locked(self.each.own());
        let place = own.hash.hash_one(operation.tuple());
        match own.series.find_mut(place, |(key, _)| key.is_of(&operation)) {
            Some((_, durations)) => durations.add(took, calls),
            None => own.more(&operation, &self.cap).add(took, calls),
        }
    }

    /// All of them, whoever has counted.
    pub(super) fn all(&self) -> BTreeMap<SeriesKey, Durations> {
        let mut all = BTreeMap::<_, Durations>::new();
        let _none_goes = locked(&self.leaving);
        for own in self.each.iter() {
            let own = locked(own);
            for (key, durations) in &own.series {
                all.entry(key.clone()).or_default().join(durations);
            }
        }
        all
    }

    /// Adds its series to those of others.
    pub(super) fn add_to(&self, route: &Labels, families: &mut Families) {
        for (key, durations) in self.all() {
            let error = key.error.to_string();
            let (caller, error) = (("caller", &*key.caller), ("error_type", error.as_str()));
            let (name, labels) = match key.protocol {
                Protocol::Mcp => {
                    let method = ("mcp_method_name", key.method);
                    let tool = ("gen_ai_tool_name", &*key.tool);
                    (MCP_SECONDS, route.and([caller, method, tool, error]))
                }
                Protocol::A2a => {
                    (A2A_SECONDS, route.and([caller, ("a2a_method_name", key.method), error]))
                }
            };
            families.durations(name, &labels, &durations);
        }
    }
}

impl Drop for Operations {
    fn drop(&mut self) {
        self.cap.give_back(self.each.iter().map(|own| locked(own).series.len()).sum());
    }
}

/// A poisoned lock only means that another thread panicked between two plain stores.
fn locked<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Own ===

impl Own {
    /// Where one is counted that was not counted yet: beyond the cap with all others.
    fn more(&mut self, operation: &Operation<'_>, cap: &SeriesCap) -> &mut Durations {
        let hash = |operation: &Operation<'_>| self.hash.hash_one(operation.tuple());
        let mut wanted = *operation;
        if !cap.take() {
            let error = operation.error.capped();
            wanted = Operation { caller: OTHER, method: OTHER, tool: OTHER, error, ..wanted };
            // There are few of these: they need no room.
            if self.series.find(hash(&wanted), |(key, _)| key.is_of(&wanted)).is_none() {
                cap.0.used.fetch_add(1, Ordering::Relaxed);
            }
        }
        let (place, hasher) = (hash(&wanted), &self.hash);
        let rehash = |(key, _): &(SeriesKey, Durations)| hasher.hash_one(key.operation().tuple());
        let entry = self.series.entry(place, |(key, _)| key.is_of(&wanted), rehash);
        let found = entry.or_insert_with(|| (SeriesKey::of(&wanted), Durations::default()));
        &mut found.into_mut().1
    }
}

// === impl Operation ===

impl<'a> Operation<'a> {
    /// What is hashed of it.
    fn tuple(&self) -> (&'a str, Protocol, &'static str, &'a str, ErrorType) {
        (self.caller, self.protocol, self.method, self.tool, self.error)
    }
}

// === impl SeriesKey ===

impl SeriesKey {
    fn of(operation: &Operation<'_>) -> Self {
        let Operation { caller, protocol, method, tool, error } = *operation;
        Self { caller: caller.into(), protocol, method, tool: tool.into(), error }
    }

    fn operation(&self) -> Operation<'_> {
        let Self { caller, protocol, method, tool, error } = self;
        let (protocol, error) = (*protocol, *error);
        Operation { caller, protocol, method, tool, error }
    }

    fn is_of(&self, operation: &Operation<'_>) -> bool {
        self.operation() == *operation
    }
}

// === impl Durations ===

impl Durations {
    /// So many more. What is above a bound by less than a microsecond is above it.
    fn add(&mut self, took: Duration, calls: u64) {
        let micros = |more| {
            let whole = took.as_secs().saturating_mul(1_000_000);
            whole.saturating_add(u64::from((took.subsec_nanos() + more) / 1000))
        };
        let up = micros(999);
        let bucket = BOUNDS.partition_point(|bound| *bound < up);
        if let Some(bucket) = self.within.get_mut(bucket) {
            *bucket += calls;
        }
        self.sum = self.sum.saturating_add(micros(0).saturating_mul(calls));
    }

    /// With those of another one.
    pub fn join(&mut self, other: &Self) {
        for (one, more) in self.within.iter_mut().zip(other.within) {
            *one += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What has come since an earlier moment.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (one, less) in since.within.iter_mut().zip(before.within) {
            *one = one.saturating_sub(less);
        }
        since.sum = since.sum.saturating_sub(before.sum);
        since
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.within.iter().sum()
    }

    /// All together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// How many were no longer than each of the bounds that series have.
    pub(super) fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        self.up_to_each().skip(FINE_BOUNDS.len())
    }

    fn up_to_each(&self) -> impl Iterator<Item = (u64, u64)> {
        BOUNDS.into_iter().zip(self.within).scan(0, |below, (bound, more)| {
            *below += more;
            Some((bound, *below))
        })
    }

    /// What this share of them did not exceed, between the bounds in proportion; `None` if there are none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Quantile> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate between two bounds")]
        let (rank, exact) = (share * count as f64, |number: u64| number as f64);
        let (mut low, mut below) = (0, 0);
        for (bound, up_to) in self.up_to_each() {
            if exact(up_to) >= rank && up_to > below {
                if low == 0 {
                    return Some(Quantile::Below(Duration::from_micros(bound)));
                }
                let part = (rank - exact(below)) / exact(up_to - below);
                let micros = exact(low) + exact(bound - low) * part;
                return Some(Quantile::About(Duration::from_secs_f64(micros / 1e6)));
            }
            (low, below) = (bound, up_to);
        }
        Some(Quantile::Above(Duration::from_micros(low)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(caller: &'static str, tool: &'static str) -> Operation<'static> {
        let (protocol, method, error) = (Protocol::Mcp, "tools/call", ErrorType::None);
        Operation { caller, protocol, method, tool, error }
    }

    fn text(operations: &Operations) -> String {
        let mut families = Families::default();
        operations.add_to(&Labels::of("route", "r"), &mut families);
        families.text(&[])
    }

    #[test]
    fn a_call_is_counted_with_its_labels_and_in_its_bucket() {
        let operations = Operations::new(SeriesCap::new(100));
        operations.count(&operation("a/b", "add"), Duration::from_millis(20), 1);
        operations.count(&operation("a/b", "add"), Duration::from_micros(20_001), 1);
        let failed = Operation { error: ErrorType::Code(-32_602), ..operation("a/b", "add") };
        operations.count(&failed, Duration::from_secs(301), 1);
        let spoken = Operation {
            protocol: Protocol::A2a,
            method: "message/send",
            error: ErrorType::Code(7),
            ..operation(UNKNOWN, "")
        };
        operations.count(&spoken, Duration::ZERO, 1);
        let text = text(&operations);
        let add = "{route=\"r\",caller=\"a/b\",mcp_method_name=\"tools/call\",gen_ai_tool_name=\"add\",error_type=\"\"";
        let mcp = "kagent_proxy_mcp_operation_duration_seconds";
        let a2a = "kagent_proxy_a2a_operation_duration_seconds";
        for line in [
            format!("# TYPE {mcp} histogram\n"),
            format!("{mcp}_bucket{add},le=\"0.01\"}} 0\n"),
            format!("{mcp}_bucket{add},le=\"0.02\"}} 1\n"),
            format!("{mcp}_bucket{add},le=\"0.05\"}} 2\n"),
            format!("{mcp}_bucket{add},le=\"300\"}} 2\n"),
            format!("{mcp}_bucket{add},le=\"+Inf\"}} 2\n"),
            format!("{mcp}_count{add}}} 2\n"),
            format!("{mcp}_sum{add}}} 0.040001\n"),
            format!("{}-32602\",le=\"300\"}} 0\n", &add[..add.len() - 1]),
            format!("{}-32602\",le=\"+Inf\"}} 1\n", &add[..add.len() - 1]),
            format!(
                "{a2a}_count{{route=\"r\",caller=\"unknown\",a2a_method_name=\"message/send\",error_type=\"other\"}} 1\n"
            ),
        ] {
            assert!(text.contains(&line), "{line}{text}");
        }
    }

    #[test]
    fn beyond_the_cap_calls_are_counted_together_and_none_is_lost() {
        let cap = SeriesCap::new(3);
        let operations = Operations::new(cap.clone());
        for n in 0..1000 {
            let name = n.to_string();
            let error = if n % 2 == 0 { ErrorType::None } else { ErrorType::Status(500) };
            let hostile = Operation {
                caller: &name,
                protocol: Protocol::Mcp,
                method: OTHER,
                tool: &name,
                error,
            };
            operations.count(&hostile, Duration::ZERO, 1);
        }
        let all = operations.all();
        assert_eq!(all.values().map(Durations::count).sum::<u64>(), 1000);
        // Three, and with and without an error all others.
        assert_eq!(all.len(), 5);
        assert_eq!(cap.state(), (5, 3));
        operations.count(&operation("0", OTHER), Duration::ZERO, 1);
        assert_eq!(operations.all().len(), 5, "what is new is counted with the others");
        drop(operations);
        assert_eq!(cap.state(), (0, 3), "what is gone makes room");
    }

    #[test]
    fn what_is_short_is_told_apart_for_people_and_not_in_series() {
        let mut durations = Durations::default();
        (0..100).for_each(|_| durations.add(Duration::from_micros(300), 1));
        let least = Duration::from_micros(500);
        assert_eq!(durations.quantile(0.99), Some(Quantile::Below(least)));
        (0..300).for_each(|_| durations.add(Duration::from_micros(4_200), 1));
        let about = Quantile::About(Duration::from_millis(3));
        assert_eq!(durations.quantile(0.5), Some(about));
        assert_eq!(durations.quantile(0.25), Some(Quantile::Below(least)));
        let exported: Vec<_> = durations.up_to().collect();
        assert_eq!(exported.first(), Some(&(10_000, 400)));
        assert_eq!(exported.len(), OPERATION_BOUNDS.len());
    }

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        let mut durations = Durations::default();
        assert_eq!(durations.quantile(0.5), None);
        (0..100).for_each(|_| durations.add(Duration::from_millis(15), 1));
        assert_eq!(durations.quantile(0.5), Some(Quantile::About(Duration::from_millis(15))));
        assert_eq!(durations.quantile(1.0), Some(Quantile::About(Duration::from_millis(20))));
        let before = durations.clone();
        durations.add(Duration::from_secs(1000), 1);
        assert_eq!(durations.quantile(1.0), Some(Quantile::Above(Duration::from_secs(300))));
        let since = durations.since(&before);
        assert_eq!((since.count(), since.sum()), (1, Duration::from_secs(1000)));
    }
}
