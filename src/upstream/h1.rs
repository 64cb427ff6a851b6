//! HTTP/1.1 toward backends: a connection that the request's own task drives.
//!
//! No task and no channel of its own, but for an upload that outlasts the head of its response; and a stream that is
//! silent holds no buffer: reads go into one that belongs to the worker. What the bytes mean is told by sans-I/O parts,
//! each alone: `head`, `body`, `encode`.
//! Knows no routes, no retries and no clients.

mod aside;
pub mod body;
pub mod connection;
pub mod download;
pub mod encode;
pub mod head;
pub mod io;
mod scratch;
#[cfg(test)]
mod tests;
pub mod upload;

pub use connection::Connection;

use super::faults::BadResponse;

/// Why an exchange on a connection has failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The connection broke.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It was closed before any byte of a response.
    #[error("connection closed before a response")]
    Closed,
    /// It was closed inside a response.
    #[error("connection closed inside a response")]
    Truncated,
    /// Something came that is no head of a response.
    #[error("{0}")]
    Head(httparse::Error),
    /// Something came that is no chunk.
    #[error("{0}")]
    Chunk(&'static str),
    /// A response came that cannot be passed on.
    #[error("{0}")]
    Bad(BadResponse),
    /// The client broke off its body.
    #[error("{0}")]
    Client(hyper::Error),
    /// The body is not as long as was announced.
    #[error("the request's body is not as long as was announced")]
    Upload,
}

// === impl Fault ===

impl Fault {
    /// Whether something came that is not HTTP.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        matches!(self, Self::Head(_) | Self::Chunk(_))
    }
}
