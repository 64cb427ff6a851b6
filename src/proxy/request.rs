//! What came in: the client's connection, what the head says, and the head made ready for a backend.
//!
//! Knows headers and one client connection; never a table, an upstream connection or a response.

pub mod address;
pub mod conn;
pub mod facts;
pub mod framing;
pub mod prepare;

use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::body::RequestBody;
use crate::config::ListenerLimits;
use conn::Connection;

/// What holds for every request that comes in.
#[derive(Debug)]
pub struct Ingress {
    /// What a head may have.
    pub limits: ListenerLimits,
    /// Clients whose `X-Forwarded-*` headers are believed.
    pub trusted: Vec<IpNet>,
    /// This instance's name in `Via`.
    pub pseudonym: String,
    /// The whole field, `1.1 <pseudonym>`.
    pub via: HeaderValue,
}

/// The request with a body that is counted, and remembered where an error may need its id: before
/// anything else is read, so that every error can have one.
#[must_use]
pub fn received(conn: &Connection, request: Request<Incoming>) -> Request<RequestBody> {
    let map = request.headers();
    let json = map.get(CONTENT_TYPE).is_some_and(|value| {
        let start = value.as_bytes().get(..16);
        start.is_some_and(|start| start.eq_ignore_ascii_case(b"application/json"))
    });
    let remember = json && request.method() == Method::POST;
    let expects = map.contains_key(EXPECT);
    request.map(|incoming| RequestBody::new(incoming, remember, expects, &conn.open))
}
