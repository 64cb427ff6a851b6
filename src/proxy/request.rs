//! What came in: the client's connection, what the head says, and the head made ready for a backend.
//!
//! Knows headers and one client connection; never a route table, an upstream connection or a response.

pub mod facts;
pub mod framing;
pub mod rewrite;
