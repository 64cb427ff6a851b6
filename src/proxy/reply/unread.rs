//! The response to a request whose head cannot be read, as bytes.
//!
//! The HTTP/1 parser refuses such a head by itself, so there is no request to answer: what it would send is
//! replaced. Knows no parser and no connection.

use super::refuse::problem;
use crate::headers::X_KAGENT_PROXY_ERROR;
use crate::proxy::error::ProxyError;

/// Whether the response `theirs` says that the head is too large: the target (414) or the fields (431).
#[must_use]
pub fn is_too_large(theirs: &[u8]) -> bool {
    !theirs.starts_with(b"HTTP/1.1 400 ")
}

/// The response that takes the place of `theirs`, whose date it keeps.
#[must_use]
pub fn response(error: &ProxyError, theirs: &[u8]) -> Vec<u8> {
    let theirs = String::from_utf8_lossy(theirs);
    let (reason, body) = (error.reason(), problem((error, error.reason().status()), ""));
    let date = theirs.lines().find(|line| line.starts_with("date: "));
    let date = date.map(|line| format!("{line}\r\n")).unwrap_or_default();
    let (status, word, length) = (reason.status().as_u16(), reason.word(), body.len());
    format!(
        "HTTP/1.1 {status} {word}\r\ncontent-type: application/problem+json\r\n\
         {X_KAGENT_PROXY_ERROR}: {word}\r\nconnection: close\r\ncontent-length: {length}\r\n\
         {date}\r\n{body}"
    )
    .into_bytes()
}
