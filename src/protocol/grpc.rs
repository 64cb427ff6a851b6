//! What gRPC says in heads and trailers of HTTP/2 (gRPC, `PROTOCOL-HTTP2.md` and `statuscodes.md`).
//!
//! Words and numbers only: bytes in, facts out. Never reads a message, which is protobuf. Pure.

use std::fmt::Write;

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u8);

/// The names of the codes, in the order of their numbers (`statuscodes.md`).
const WORDS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Bytes of a message before they are encoded: clients take 8 KiB of metadata by default, and encoding may triple it.
const MAX_MESSAGE: usize = 1024;

// === impl Code ===

impl Code {
    /// A result.
    pub const OK: Self = Self(0);
    /// It is not known how, or whether it ended.
    pub const UNKNOWN: Self = Self(2);
    /// The request is wrong, whatever the server's state is.
    pub const INVALID_ARGUMENT: Self = Self(3);
    /// It took too long; it may have been done all the same.
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    /// It must not be done.
    pub const PERMISSION_DENIED: Self = Self(7);
    /// Something is used up, such as the room for a head.
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    /// Something is broken that should work.
    pub const INTERNAL: Self = Self(13);
    /// The service is not there at the moment; clients may be set up to try again.
    pub const UNAVAILABLE: Self = Self(14);

    /// The code that stands in `grpc-status`. What is no known number is [`Code::UNKNOWN`], as for clients.
    #[must_use]
    pub fn of(status: &[u8]) -> Self {
        let number = std::str::from_utf8(status).ok().and_then(|text| text.parse().ok());
        number.filter(|number| usize::from(*number) < WORDS.len()).map_or(Self::UNKNOWN, Self)
    }

    /// The number of `grpc-status`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        WORDS.get(usize::from(self.0)).copied().unwrap_or("UNKNOWN")
    }
}

/// Whether a `content-type` is that of gRPC over HTTP/2: `application/grpc`, or with `+` and a format behind it. Not
/// `application/grpc-web`, which is another protocol.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    content_type.split_at_checked(16).is_some_and(|(start, rest)| {
        start.eq_ignore_ascii_case(b"application/grpc")
            && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
    })
}

/// A text as `grpc-message` has it (`PROTOCOL-HTTP2.md`, "Responses"): every byte but space and visible ASCII, and `%`,
/// encoded. A long text is cut.
#[must_use]
pub fn message(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_MESSAGE);
    let mut out = String::with_capacity(end);
    for byte in text.bytes().take(end) {
        match byte {
            b' '..=b'$' | b'&'..=b'~' => out.push(char::from(byte)),
            // Writing into a text does not fail.
            _ => {
                let _infallible = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_numbers_and_names_of_the_specification() {
        for (code, number, word) in [
            (Code::OK, "0", "OK"),
            (Code::UNKNOWN, "2", "UNKNOWN"),
            (Code::INVALID_ARGUMENT, "3", "INVALID_ARGUMENT"),
            (Code::DEADLINE_EXCEEDED, "4", "DEADLINE_EXCEEDED"),
            (Code::PERMISSION_DENIED, "7", "PERMISSION_DENIED"),
            (Code::RESOURCE_EXHAUSTED, "8", "RESOURCE_EXHAUSTED"),
            (Code::INTERNAL, "13", "INTERNAL"),
            (Code::UNAVAILABLE, "14", "UNAVAILABLE"),
        ] {
            assert_eq!(Code::of(number.as_bytes()), code);
            assert_eq!((code.number().to_string().as_str(), code.word()), (number, word));
        }
        assert_eq!(Code::of(b"16").word(), "UNAUTHENTICATED");
        for odd in ["17", "-1", "", "OK", "256", "\u{e9}"] {
            assert_eq!(Code::of(odd.as_bytes()), Code::UNKNOWN, "{odd}");
        }
    }

    #[test]
    fn grpc_is_told_from_its_neighbours() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("Application/gRPC+proto", true),
            ("application/grpc+json", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/grpcs", false),
            ("application/grp", false),
            ("application/json", false),
            ("", false),
        ] {
            assert_eq!(is_grpc(kind.as_bytes()), expected, "{kind}");
        }
    }

    #[test]
    fn a_message_is_percent_encoded_and_cut_between_characters() {
        assert_eq!(message("a b~!$&"), "a b~!$&");
        assert_eq!(message("100%\r\n\u{7f}\0"), "100%25%0D%0A%7F%00");
        assert_eq!(message("b\u{fc}cher"), "b%C3%BCcher");
        assert_eq!(message(&"x".repeat(2 * MAX_MESSAGE)).len(), MAX_MESSAGE);
        // The last character does not fit whole.
        let odd = format!("x{}", "\u{fc}".repeat(MAX_MESSAGE));
        assert_eq!(message(&odd).len(), 1 + 3 * (MAX_MESSAGE - 2));
    }
}
