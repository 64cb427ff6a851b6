//! What came in: the client's connection, what the head says, and how it goes on to a backend.
//!
//! Knows headers and one client connection; never a table, an upstream connection or a response.

pub mod address;
pub mod conn;
pub mod facts;
pub mod fields;
pub mod framing;

use http::{Method, Request};
use hyper::body::Incoming;
use ipnet::IpNet;

use crate::body::RequestBody;
use crate::body::tap::Watch;
use crate::config::ListenerLimits;
use crate::headers::names::Known;
use crate::workers::value::OwnValue;
use conn::Connection;
use fields::Fields;

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
    pub via: OwnValue,
}

/// The request with a body that is counted, and remembered where an error may need its id: before
/// anything else is read, so that every error can have one. Its calls are read if `sees_calls`.
#[must_use]
pub fn received(
    conn: &Connection,
    fields: &Fields,
    request: Request<Incoming>,
    sees_calls: bool,
) -> Request<RequestBody> {
    let is_call = fields.is_json && request.method() == Method::POST;
    let watch = match (is_call, sees_calls) {
        (false, _) => Watch::Nothing,
        (true, false) => Watch::Bytes,
        (true, true) => Watch::Calls,
    };
    let expects = fields.names.has(Known::Expect);
    request.map(|incoming| RequestBody::new(incoming, watch, expects, &conn.open))
}
