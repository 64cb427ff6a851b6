//! The kinds of scalars a configuration file may hold: how each is read and shown, and what the schema says of it.
//!
//! All three stand side by side, so that none can know a key the others do not. Knows no key and no place in a file.

use std::fmt::Display;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;
use serde_json::{Value, json};

use super::LogFormat;
use super::units::{duration_text, parse_duration, parse_size, size_text};
use crate::workers::Scheduler;

/// A kind of scalar that becomes a `T`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScalarKind<T> {
    pub(super) shape: Shape,
    pub(super) parse: fn(&str) -> Result<T, String>,
    show: fn(&Self, &T) -> Value,
}

/// What a kind looks like in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Switch,
    Number {
        min: u64,
        max: u64,
    },
    /// A number from 0 to 1.
    Ratio,
    Duration,
    Size,
    /// One of these words.
    Words(&'static [&'static str]),
}

// === impl ScalarKind ===

impl<T> ScalarKind<T> {
    /// As `/config` shows it.
    pub(super) fn shown(&self, value: &T) -> Value {
        (self.show)(self, value)
    }

    /// Any text that `parse` takes.
    pub(super) const fn text(parse: fn(&str) -> Result<T, String>) -> Self
    where
        T: Display,
    {
        Self { shape: Shape::Text, parse, show: |_, value| json!(value.to_string()) }
    }

    /// The same, shown in another way than it prints.
    pub(super) const fn text_shown(
        parse: fn(&str) -> Result<T, String>,
        show: fn(&Self, &T) -> Value,
    ) -> Self {
        Self { shape: Shape::Text, parse, show }
    }

    /// One of these words; the schema leaves out what `parse` does not take.
    pub(super) const fn words(
        words: &'static [&'static str],
        parse: fn(&str) -> Result<T, String>,
    ) -> Self
    where
        T: PartialEq,
    {
        let show = |kind: &Self, value: &T| {
            let mut words = words_of(kind.shape).iter();
            json!(words.find(|word| (kind.parse)(word).as_ref() == Ok(value)))
        };
        Self { shape: Shape::Words(words), parse, show }
    }
}

impl<T: Display> ScalarKind<Option<T>> {
    /// Any text that `parse` takes; what is not there is shown as null.
    pub(super) const fn optional(parse: fn(&str) -> Result<Option<T>, String>) -> Self {
        let show = |_: &Self, value: &Option<T>| json!(value.as_ref().map(T::to_string));
        Self { shape: Shape::Text, parse, show }
    }
}

const fn words_of(shape: Shape) -> &'static [&'static str] {
    if let Shape::Words(words) = shape { words } else { &[] }
}

/// The name of a file; of an empty one, none.
pub(super) const FILE: ScalarKind<Option<PathBuf>> = ScalarKind::text_shown(
    |text| Ok(Some(text).filter(|text| !text.is_empty()).map(PathBuf::from)),
    |_, file| json!(file.as_ref().map(|file| file.display().to_string())),
);
/// Any text.
pub(super) const TEXT: ScalarKind<String> = ScalarKind::text(|text| Ok(text.to_owned()));
/// `true` or `false`.
pub(super) const SWITCH: ScalarKind<bool> = ScalarKind {
    shape: Shape::Switch,
    parse: |text| {
        text.parse().map_err(|_| format!("{text:?} is not a switch; write true or false"))
    },
    show: |_, value| json!(value),
};
/// Milliseconds; with them the bounds of durations are written.
pub(super) const HOUR: u64 = 3_600_000;
/// The same.
pub(super) const DAY: u64 = 24 * HOUR;
/// The longest duration that anybody means: beyond it is a typing error.
pub(super) const YEAR: u64 = 365 * DAY;
/// Bytes.
pub(super) const MIB: u64 = 1 << 20;

/// A duration within these milliseconds.
pub(super) const fn duration<const MIN: u64, const MAX: u64>() -> ScalarKind<Duration> {
    duration_kind(|text| within(parse_duration(text)?, MIN, MAX, false))
}

/// The same, or 0, which turns something off.
pub(super) const fn duration_or_0<const MIN: u64, const MAX: u64>() -> ScalarKind<Duration> {
    duration_kind(|text| within(parse_duration(text)?, MIN, MAX, true))
}

const fn duration_kind(parse: fn(&str) -> Result<Duration, String>) -> ScalarKind<Duration> {
    ScalarKind { shape: Shape::Duration, parse, show: |_, time| json!(duration_text(*time)) }
}

fn within(time: Duration, min: u64, max: u64, may_be_0: bool) -> Result<Duration, String> {
    let (min, max) = (Duration::from_millis(min), Duration::from_millis(max));
    if (min..=max).contains(&time) || (may_be_0 && time.is_zero()) {
        return Ok(time);
    }
    let [time, min, max] = [time, min, max].map(duration_text);
    let off = if may_be_0 { ", or 0" } else { "" };
    Err(format!("{time} is out of bounds; write {min} to {max}{off}"))
}

/// A time limit of at least a tenth of a second; 0 is none.
pub(super) const LIMIT: ScalarKind<Option<Duration>> = ScalarKind {
    shape: Shape::Duration,
    parse: |text| {
        let time = within(parse_duration(text)?, 100, YEAR, true)?;
        Ok(Some(time).filter(|time| !time.is_zero()))
    },
    show: |_, limit| json!(duration_text(limit.unwrap_or_default())),
};

/// A number of bytes within these.
pub(super) const fn size<const MIN: u64, const MAX: u64>() -> ScalarKind<usize> {
    ScalarKind {
        shape: Shape::Size,
        parse: |text| {
            let bytes = parse_size(text)?;
            if (MIN..=MAX).contains(&(bytes as u64)) {
                return Ok(bytes);
            }
            let [min, max] = [MIN, MAX].map(|bound| usize::try_from(bound).unwrap_or(usize::MAX));
            let [bytes, min, max] = [bytes, min, max].map(size_text);
            Err(format!("{bytes} is out of bounds; write {min} to {max}"))
        },
        show: |_, bytes| json!(size_text(*bytes)),
    }
}

/// A network, or an address as the network of itself.
pub(super) const NETWORK: ScalarKind<IpNet> = ScalarKind::text(|text| {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map(canonical)
        .map_err(|_| format!("{text:?} is not a network; write one such as 10.0.0.0/8 or 10.0.0.1"))
});

/// Addresses of clients are compared in their canonical form.
fn canonical(net: IpNet) -> IpNet {
    let (address, length) = (net.addr().to_canonical(), net.prefix_len());
    match (net, length.checked_sub(96)) {
        (IpNet::V6(_), Some(length)) if address.is_ipv4() => {
            IpNet::new(address, length).unwrap_or(net)
        }
        _ => net,
    }
}

/// A whole number within these.
pub(super) const fn number<const MIN: u64, const MAX: u64, T>() -> ScalarKind<T>
where
    T: TryFrom<u64> + Serialize,
{
    let parse = |text: &str| {
        let wrong = || format!("{text:?} is not a whole number; write one from {MIN} to {MAX}");
        let number: u64 = text.parse().map_err(|_| wrong())?;
        if !(MIN..=MAX).contains(&number) {
            return Err(format!("{number} is out of bounds; write {MIN} to {MAX}"));
        }
        T::try_from(number).map_err(|_| wrong())
    };
    ScalarKind {
        shape: Shape::Number { min: MIN, max: MAX },
        parse,
        show: |_, number| json!(number),
    }
}

/// A share, from 0 to 1.
pub(super) const RATIO: ScalarKind<f64> =
    ScalarKind { shape: Shape::Ratio, parse: parse_ratio, show: |_, ratio| json!(ratio) };

/// A share.
pub(super) fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("{text:?} is not a share; write a number from 0 to 1"))
}

/// Threads that carry traffic; none is one for each core.
pub(super) const WORKERS: ScalarKind<Option<NonZeroUsize>> = ScalarKind {
    shape: Shape::Number { min: 1, max: 1024 },
    parse: |text| parse_workers(text).map(Some),
    show: |_, workers| json!(workers),
};

/// Threads that carry traffic.
pub(super) fn parse_workers(text: &str) -> Result<NonZeroUsize, String> {
    let workers = text.parse::<NonZeroUsize>().ok().filter(|workers| workers.get() <= 1024);
    workers.ok_or_else(|| format!("{text:?} is not a number of threads; write 1 to 1024"))
}

/// Who runs a request.
pub(super) fn parse_scheduler(text: &str) -> Result<Scheduler, String> {
    match text {
        "shared" => Ok(Scheduler::Shared),
        "perCore" => Ok(Scheduler::PerCore),
        _ => Err(format!("{text:?} is not known; write shared or perCore")),
    }
}

/// The shape of log lines.
pub(super) fn parse_log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err(format!("{text:?} is not a log format; write json or text")),
    }
}

/// The directives of what is logged.
pub(super) fn parse_log_level(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text:?} is not a log level ({error}); write one such as info or info,kagent_proxy=debug"
        )),
    }
}
