//! W3C Trace Context: reads `traceparent`, and writes it.
//!
//! Pure: bytes in, a context out. Never touches `tracestate`, which passes as it came, and decides nothing.

/// Which trace a request belongs to, and which span of it sent the request (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// [`SAMPLED`] and [`RANDOM`]; others are not passed on (section 3.2.2.5).
    pub flags: u8,
}

/// The caller may have recorded the request (section 3.2.2.5.1).
pub const SAMPLED: u8 = 1;
/// The trace's id is random (Trace Context Level 2, section 2.2.2.5.2).
pub const RANDOM: u8 = 2;

/// The length of version 00; later versions may have more behind it.
const LENGTH: usize = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".len();

// === impl TraceContext ===

impl TraceContext {
    /// Reads the value of `traceparent`; `None` if it is none, and the trace has to begin anew. Of a later version, what
    /// version 00 has (section 3.2.4).
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let version = hex(parts.next()?, 2)?;
        let trace = hex(parts.next()?, 32)?;
        let span = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()? & (SAMPLED | RANDOM);
        let ends = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let whole = ends && parts.next().is_none() && trace != 0 && span != 0;
        whole.then_some(Self { trace, span, flags })
    }

    /// Whether the caller may have recorded the request.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl std::fmt::Display for TraceContext {
    /// As version 00.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

/// So many digits; upper case is none (section 3.2.2).
fn hex(text: &[u8], length: usize) -> Option<u128> {
    let digit = |byte: &u8| match byte {
        b'0'..=b'9' => Some(u128::from(byte - b'0')),
        b'a'..=b'f' => Some(u128::from(byte - b'a' + 10)),
        _ => None,
    };
    let value = text.iter().try_fold(0, |value, byte| Some(value << 4 | digit(byte)?));
    value.filter(|_| text.len() == length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    #[test]
    fn what_the_recommendation_allows_is_read_and_nothing_else() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (value, flags) in [
            (format!("00-{ids}-01"), Some(SAMPLED)),
            (format!("00-{ids}-00"), Some(0)),
            (format!("00-{ids}-03"), Some(SAMPLED | RANDOM)),
            // Other flags are unknown, and the rest holds.
            (format!("00-{ids}-ff"), Some(SAMPLED | RANDOM)),
            (format!("00-{ids}-fc"), Some(0)),
            // A later version is read as far as it is known.
            (format!("01-{ids}-01"), Some(SAMPLED)),
            (format!("cc-{ids}-01-what-the-future-will-be-like"), Some(SAMPLED)),
            (format!("cc-{ids}-01-"), Some(SAMPLED)),
            (format!("cc-{ids}-01.what"), None),
            (format!("00-{ids}-01-"), None),
            (format!("00-{ids}-01-what"), None),
            (format!("ff-{ids}-01"), None),
            (format!("00-{ids}-0"), None),
            (format!("00-{ids}"), None),
            (format!("0-{ids}-01"), None),
            (format!("00-{ids}-0x"), None),
            (format!(" 00-{ids}-01"), None),
            (format!("00-{}-01", ids.to_uppercase()), None),
            (format!("00-{}-01", ids.replace('7', ".")), None),
            (format!("00_{ids}_01"), None),
            (format!("00-{}0-{}-01", "0".repeat(31), "1".repeat(16)), None),
            (format!("00-{}-{}-01", "1".repeat(32), "0".repeat(16)), None),
            // The dashes stand elsewhere.
            (format!("00-{}-{}-01", "1".repeat(31), "1".repeat(17)), None),
            (format!("00{}-{}-{}-01", "-", "1".repeat(33), "1".repeat(15)), None),
            (String::new(), None),
            ("-".repeat(LENGTH), None),
        ] {
            let expected = flags.map(|flags| TraceContext { trace: TRACE, span: SPAN, flags });
            assert_eq!(TraceContext::parse(value.as_bytes()), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(trace in 1u128.., span in 1u64.., flags in 0u8..4) {
            let context = TraceContext { trace, span, flags };
            let text = context.to_string();
            prop_assert_eq!(text.len(), LENGTH);
            prop_assert_eq!(TraceContext::parse(text.as_bytes()), Some(context));
        }

        #[test]
        fn whatever_is_read_is_what_a_strict_reader_reads(
            value in prop_oneof!["[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", "[-0-9a-fA-F]{53,57}", ".{0,60}"]
        ) {
            let strict = |text: &str| {
                let parts: Vec<_> = text.split('-').collect();
                let [version, trace, span, flags] = parts[..] else { return false };
                let lower = |part: &str, length| part.len() == length
                    && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
                version != "ff" && lower(version, 2) && lower(trace, 32) && lower(span, 16) && lower(flags, 2)
                    && trace.bytes().any(|byte| byte != b'0') && span.bytes().any(|byte| byte != b'0')
            };
            let text = value.get(..LENGTH).unwrap_or(&value);
            if value.len() <= LENGTH {
                prop_assert_eq!(TraceContext::parse(value.as_bytes()).is_some(), strict(text));
            } else if TraceContext::parse(value.as_bytes()).is_some() {
                prop_assert!(strict(text) && !value.starts_with("00"));
            }
        }
    }
}
