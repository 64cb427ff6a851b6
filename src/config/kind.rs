//! The kinds of scalars a configuration file may hold: how each is read, and how the schema shows it.
//!
//! Reading and schema stand side by side, so that neither can know a key the other does not.
//! `check.rs` names a kind for every key; `file.rs` reads by it, `schema.rs` writes it down.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::units::{parse_duration, parse_size};

/// A kind of scalar that becomes a `T`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind<T> {
    pub(super) shape: Shape,
    pub(super) parse: fn(&str) -> Result<T, String>,
}

/// What a kind looks like in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Switch,
    Number,
    Duration,
    Size,
    /// One of these words.
    Words(&'static [&'static str]),
}

// === impl Kind ===

impl<T> Kind<T> {
    /// Any text that `parse` takes.
    pub(super) const fn text(parse: fn(&str) -> Result<T, String>) -> Self {
        Self { shape: Shape::Text, parse }
    }

    /// A number that `parse` takes.
    pub(super) const fn number(parse: fn(&str) -> Result<T, String>) -> Self {
        Self { shape: Shape::Number, parse }
    }

    /// A duration that `parse` takes.
    pub(super) const fn duration(parse: fn(&str) -> Result<T, String>) -> Self {
        Self { shape: Shape::Duration, parse }
    }

    /// One of these words; the schema leaves out what `parse` does not take.
    pub(super) const fn words(
        words: &'static [&'static str],
        parse: fn(&str) -> Result<T, String>,
    ) -> Self {
        Self { shape: Shape::Words(words), parse }
    }
}

/// Any text.
pub(super) const TEXT: Kind<String> = Kind::text(|text| Ok(text.to_owned()));
/// `true` or `false`.
pub(super) const SWITCH: Kind<bool> = Kind {
    shape: Shape::Switch,
    parse: |text| {
        text.parse().map_err(|_| format!("{text:?} is not a switch; write true or false"))
    },
};
/// A duration that may be 0.
pub(super) const DURATION: Kind<Duration> = Kind::duration(parse_duration);
/// A duration that may not be 0.
pub(super) const POSITIVE: Kind<Duration> = Kind::duration(|text| match parse_duration(text)? {
    Duration::ZERO => Err("must not be 0; write a duration such as 10s".to_owned()),
    time => Ok(time),
});
/// A time limit; 0 is none.
pub(super) const LIMIT: Kind<Option<Duration>> =
    Kind::duration(|text| parse_duration(text).map(|time| Some(time).filter(|t| !t.is_zero())));
/// A number of bytes.
pub(super) const SIZE: Kind<usize> = Kind { shape: Shape::Size, parse: parse_size };
/// A network, or an address as the network of itself.
pub(super) const NETWORK: Kind<IpNet> = Kind::text(|text| {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text:?} is not a network; write one such as 10.0.0.0/8 or 10.0.0.1"))
});

/// A whole number.
pub(super) const fn number<T: FromStr>() -> Kind<T> {
    Kind::number(|text| {
        text.parse().map_err(|_| format!("{text:?} is not a whole number; write one such as 100"))
    })
}
