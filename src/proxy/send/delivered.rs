//! What a request came to.
//!
//! Plain data.

use http::Response;

use crate::proxy::instead::Instead;
use crate::proxy::way::Way;
use crate::upstream::Leased;

/// What a request came to.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are responses, which a box would cost an allocation each"
)]
pub enum Delivered {
    /// A backend's response, and the way that the request was sent.
    Response(Response<Leased>, Way),
    /// None, and this in its place.
    Instead(Instead),
}
