//! Durations and sizes as people write them: `1m30s`, `500ms`, `0`; `64KiB`, `1MiB`, plain bytes.
//!
//! Knows nothing of files or of keys: the caller adds where the text stood. Values go into
//! [`Config`](super::Config); [`duration_text`] and [`size_text`] bring them back for `/config`.

use std::time::Duration;

/// Unit and its length in milliseconds, longest first.
const TIMES: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Unit and its size in bytes, largest first.
const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a duration: numbers with `h`, `m`, `s` or `ms`, each unit once and longest first, or `0`.
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write one such as 30s, 1m30s, 500ms or 0");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut units = TIMES.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_digits(rest).ok_or_else(wrong)?;
        let (unit, tail) = split_letters(after);
        // The iterator is not rewound: an earlier or repeated unit is not found any more.
        let (_, length) = units.find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total =
            number.checked_mul(*length).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

/// Reads a size: bytes, or a whole number of `KiB`, `MiB` or `GiB`.
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is not a size; write one such as 64KiB, 1MiB or 65536");
    let (number, unit) = split_digits(text).ok_or_else(wrong)?;
    let factor = match unit {
        "" => 1,
        _ => SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
    };
    let bytes = number.checked_mul(factor).ok_or_else(wrong)?;
    usize::try_from(bytes).map_err(|_| wrong())
}

/// The shortest text [`parse_duration`] reads back; parts below a millisecond are dropped.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, length) in TIMES {
        if left >= length {
            text.push_str(&format!("{}{name}", left / length));
            left %= length;
        }
    }
    if text.is_empty() { "0".to_owned() } else { text }
}

/// The shortest text [`parse_size`] reads back.
#[must_use]
pub fn size_text(bytes: usize) -> String {
    let bytes = bytes as u64;
    let fits = SIZES.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor));
    fits.map_or_else(|| bytes.to_string(), |(name, factor)| format!("{}{name}", bytes / factor))
}

fn split_digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn split_letters(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_durations() {
        for (text, ms) in
            [("0", 0), ("30s", 30_000), ("1m30s", 90_000), ("500ms", 500), ("1h1ms", 3_600_001)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_duration() {
        for text in
            ["", "30", "s", "1s1m", "1s1s", "-1s", "1.5s", "1 s", "9999999999999999h", "1d", "+1s"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_sizes_and_refuses_others() {
        for (text, bytes) in [("64KiB", 65_536), ("1MiB", 1_048_576), ("12", 12), ("0", 0)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64KB", "KiB", "1.5MiB", "-1", "99999999999GiB", "1 KiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn durations_round_trip(ms in 0..u64::MAX / 2) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }

        #[test]
        fn sizes_round_trip(bytes in 0..usize::MAX) {
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
    }
}
