//! Where the port of `host[:port]` begins (RFC 3986 section 3.2), for all who read such text by themselves.
//!
//! Splits, and reads digits. What a host may be, and whether a port may be missing, empty or 0, each caller decides; nothing
//! is known of user information. Where a whole authority has to be valid, `http::uri::Authority` reads it.

/// The host as written, with the brackets of an IPv6 address, and what stands behind the colon, if there is one.
#[must_use]
pub fn split(text: &str) -> (&str, Option<&str>) {
    let literal = if text.starts_with('[') { text.find(']').unwrap_or(0) } else { 0 };
    let colon = text.bytes().skip(literal).position(|byte| byte == b':');
    match colon.and_then(|at| text.split_at_checked(literal + at)) {
        Some((host, port)) => (host, port.get(1..)),
        None => (text, None),
    }
}

/// A port of digits alone: `parse` would take a sign.
#[must_use]
pub fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_begins_at_the_first_colon_that_is_not_in_brackets() {
        for (text, host, port) in [
            ("", "", None),
            ("a.b", "a.b", None),
            ("a.b:80", "a.b", Some("80")),
            ("a:", "a", Some("")),
            ("a:80:80", "a", Some("80:80")),
            ("::1", "", Some(":1")),
            ("[::1]", "[::1]", None),
            ("[::1]:80", "[::1]", Some("80")),
            ("[::1]x:80", "[::1]x", Some("80")),
            ("[::1:80", "[", Some(":1:80")),
            ("ä:1", "ä", Some("1")),
        ] {
            assert_eq!(split(text), (host, port), "{text:?}");
        }
    }

    #[test]
    fn a_port_is_digits_that_fit_16_bits() {
        for text in ["", "+80", "-1", "65536", "x", " 80", "80:80"] {
            assert_eq!(port(text), None, "{text:?}");
        }
        assert_eq!((port("0"), port("00080"), port("65535")), (Some(0), Some(80), Some(65535)));
    }
}
