//! What a backend did instead of sending a response that can be passed on.
//!
//! Knows errors of both protocols, and heads; never a connection or a request.

use std::error::Error as _;

use h2::Reason;
use http::HeaderMap;

use super::h1::Fault;

/// What one response's headers may measure, over either version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    bytes: u32,
    fields: u32,
}

/// A response that came, and cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    /// Two readers could find its end in two places.
    #[error("the end of the response is ambiguous: {0}")]
    Ambiguous(&'static str),
    /// Beyond the limits.
    #[error(
        "the response's headers are larger than {} bytes (upstream.maxHeadBytes) or {} fields \
         (upstream.maxHeadFields)",
        .0.bytes(),
        .0.fields()
    )]
    TooLarge(HeadLimits),
}

/// Why a request got no response, or why the body of one broke off.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Over HTTP/1.1.
    #[error(transparent)]
    Http1(Fault),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
    /// A response came that cannot be passed on.
    #[error("{0}")]
    Bad(BadResponse),
}

// === impl SendError ===

impl SendError {
    /// Whether something came that is not HTTP, or breaks its rules: the backend's fault, but no reset.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        match self {
            Self::Http1(fault) => fault.is_malformed(),
            Self::Http2(error) => is_malformed(error),
            Self::Bad(_) => true,
        }
    }

    /// Whether the backend surely did nothing with a request of which something was written.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Http2(error) if unprocessed(error))
    }

    /// The response that cannot be passed on, if one came.
    #[must_use]
    pub const fn bad_response(&self) -> Option<BadResponse> {
        match self {
            Self::Http1(Fault::Bad(bad)) | Self::Bad(bad) => Some(*bad),
            Self::Http1(_) | Self::Http2(_) => None,
        }
    }
}

// === impl HeadLimits ===

impl HeadLimits {
    /// So many bytes, as HTTP/1.1 writes them, and fields.
    #[must_use]
    pub const fn new(bytes: usize, fields: usize) -> Self {
        Self { bytes: narrow(bytes), fields: narrow(fields) }
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// Fields.
    #[must_use]
    pub const fn fields(self) -> usize {
        self.fields as usize
    }

    /// Whether a head with these fields is within.
    #[must_use]
    pub fn admit(self, headers: &HeaderMap) -> bool {
        // The status line and the empty line, without a reason phrase, which HTTP/2 does not have.
        let line = "HTTP/1.1 200 \r\n\r\n".len();
        let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
        bytes + line <= self.bytes() && headers.len() <= self.fields()
    }

    /// A bound for h2, which counts 32 bytes more for each field (RFC 9113 section 6.5.2). More than the
    /// limits: what lies between is refused by us, with a reason.
    #[must_use]
    pub fn list_size(self) -> u32 {
        let size = self.fields().saturating_mul(32).saturating_add(self.bytes()).saturating_mul(2);
        u32::try_from(size).unwrap_or(u32::MAX)
    }
}

/// Whether the backend surely did nothing with the request (RFC 9113 section 8.7): it refused the
/// stream, or said goodbye with a last stream below this one. h2 gives the error of a GOAWAY to no
/// stream that the backend may still have worked on: those wait, and end with their connection.
#[must_use]
pub fn unprocessed(error: &hyper::Error) -> bool {
    of_h2(error).is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// Whether something came that is not HTTP, or breaks its rules: the backend's fault, but no reset.
#[must_use]
pub fn is_malformed(error: &hyper::Error) -> bool {
    error.is_parse() || of_h2(error).is_some_and(h2::Error::is_library)
}

/// Whether the connection ended by a TLS alert: in TLS 1.3 a backend refuses a client's certificate behind
/// the handshake (RFC 8446 section 4.4.2.4). rustls calls it invalid data, which TCP never does.
#[must_use]
pub fn is_tls(error: &hyper::Error) -> bool {
    let io = match of_h2(error) {
        Some(error) => error.get_io(),
        None => error.source().and_then(|source| source.downcast_ref()),
    };
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData)
}

fn of_h2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// As much of it as fits: each connection keeps these limits, and no head is longer than 4 GiB.
#[expect(clippy::cast_possible_truncation, reason = "it is at most the largest number that fits")]
const fn narrow(limit: usize) -> u32 {
    if limit > u32::MAX as usize { u32::MAX } else { limit as u32 }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_head_is_measured_as_http_1_writes_it() {
        let mut headers = HeaderMap::new();
        headers.append(HeaderName::from_static("x-a"), HeaderValue::from_static("12345"));
        headers.append(HeaderName::from_static("x-a"), HeaderValue::from_static("6"));
        let written = "HTTP/1.1 200 \r\nx-a: 12345\r\nx-a: 6\r\n\r\n".len();
        for (bytes, fields, admitted) in
            [(written, 2, true), (written - 1, 2, false), (written, 1, false)]
        {
            let limits = HeadLimits::new(bytes, fields);
            assert_eq!(limits.admit(&headers), admitted, "{limits:?}");
        }
        assert!(HeadLimits::new(100, 2).list_size() >= 2 * 100 + 2 * 64);
    }
}
