//! The text within the quotes of a JSON string (RFC 8259 section 7), looked at in words of eight bytes.
//!
//! Most texts of messages and of log lines are short: a search that is made ready for long ones costs more than all of
//! their bytes. Pure.

const ONES: u64 = u64::from_le_bytes([1; 8]);
const HIGHS: u64 = ONES << 7;

/// Where a text ends, or an escape begins within it.
#[must_use]
pub fn end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    for word in bytes.as_chunks::<8>().0.iter().take(2) {
        let found = quotes(u64::from_le_bytes(*word));
        if found != 0 {
            return Some(at + usize::try_from(found.trailing_zeros() / 8).unwrap_or_default());
        }
        at += 8;
    }
    Some(at + memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?)
}

/// Whether a string may have these bytes as they are.
#[must_use]
pub fn is_plain(bytes: &[u8]) -> bool {
    let plain = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        quotes(word) | controls == 0
    };
    match bytes.last_chunk::<8>() {
        // Some of them are looked at twice.
        Some(last) => plain(last) && bytes.as_chunks::<8>().0.iter().all(plain),
        None => !bytes.iter().any(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')),
    }
}

/// The highest bit of the first byte that is a quote or a backslash, and maybe of some behind it.
const fn quotes(word: u64) -> u64 {
    zeros(word ^ (ONES * b'"' as u64)) | zeros(word ^ (ONES * b'\\' as u64))
}

/// The highest bit of the first byte that is zero, and maybe of some behind it.
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_look_at_words_finds_what_a_look_at_bytes_does(
            text in "[a\"\\\\!#\\[\\]é\u{1}\u{1f} \u{7f}]{0,40}|[a-z!# \\[\\]]{0,30}[\"\\\\\u{1f}é]?[a-z]{0,9}",
        ) {
            let bytes = text.as_bytes();
            let special = |byte: &u8| matches!(byte, b'"' | b'\\');
            proptest::prop_assert_eq!(end(bytes), bytes.iter().position(special));
            let plain = !bytes.iter().any(|byte| special(byte) || *byte < b' ');
            proptest::prop_assert_eq!(is_plain(bytes), plain);
        }
    }
}
