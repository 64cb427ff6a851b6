//! How a call of gRPC has ended, which HTTP does not say: its status is 200 whatever happened.
//!
//! Reads one field of a response's head or trailers, of calls of gRPC only.

use http::{HeaderMap, HeaderName};

use super::Recorder;
use crate::protocol::grpc::Code;
use crate::proxy::reason::Reason;
use crate::telemetry::record::Outcome;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl Recorder {
    /// Whether the request is a call of gRPC, whose client reads nothing but gRPC.
    #[must_use]
    pub const fn is_grpc(&self) -> bool {
        self.head.speaks_grpc
    }

    /// Fields of the response: its head, which may be all of it, or its trailers.
    pub fn on_grpc(&mut self, map: &HeaderMap) {
        if self.is_grpc()
            && let Some(status) = map.get(GRPC_STATUS)
        {
            self.grpc = Some(Code::of(status.as_bytes()));
        }
    }

    /// The proxy answers a call of gRPC itself. The status of HTTP is the one that its client gets.
    pub fn refused_grpc(&mut self, reason: Reason) {
        (self.status, self.grpc) = (200, Some(reason.grpc()));
        self.outcome = Outcome::Refused(reason.word());
    }
}
