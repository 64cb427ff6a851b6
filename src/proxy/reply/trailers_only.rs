//! The answer of our own to a call of gRPC: a head that ends the stream, for clients of gRPC read nothing else.
//!
//! gRPC calls it "Trailers-Only" (`PROTOCOL-HTTP2.md`, "Responses"). Knows the error; never how the request got here.

use http::{HeaderName, HeaderValue, Response, header};

use crate::protocol::grpc;
use crate::proxy::error::ProxyError;

/// The answer, without a body. Its message says all that a JSON error would.
#[must_use]
pub fn trailers_only(error: &ProxyError) -> Response<()> {
    let reason = error.reason();
    let mut response = Response::new(());
    let map = response.headers_mut();
    map.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    map.insert(HeaderName::from_static("grpc-status"), u16::from(reason.grpc().number()).into());
    if let Ok(message) = HeaderValue::try_from(grpc::message(&worded(error))) {
        map.insert(HeaderName::from_static("grpc-message"), message);
    }
    response
}

/// The reason first, for a long text is cut.
fn worded(error: &ProxyError) -> String {
    let reason = error.reason();
    let mut text = format!("kagent-proxy: {}: {error}", reason.word());
    let candidates = error.candidates();
    if !candidates.is_empty() {
        text.push_str("; candidates: ");
        text.push_str(&candidates.join(", "));
    }
    text.push_str("; ");
    text.push_str(reason.action());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::error::Misrouted;
    use crate::proxy::reason::Reason;

    #[test]
    fn the_message_says_why_what_would_fit_and_what_to_do() {
        let error = ProxyError::Misrouted(Box::new(Misrouted {
            host: "helper.team-b".to_owned(),
            reason: Reason::UnknownTarget,
            detail: "no route: b\u{fc}cher\n".to_owned(),
            candidates: vec!["helper.team-a".to_owned(), "helper.team-c".to_owned()],
            chain: Vec::new(),
            discovering: true,
        }));
        let response = trailers_only(&error);
        let field = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!((field("content-type"), field("grpc-status")), ("application/grpc", "14"));
        assert_eq!(
            field("grpc-message"),
            "kagent-proxy: unknown_target: no route: b%C3%BCcher%0A; candidates: helper.team-a, \
             helper.team-c; add a route; the candidates are near misses"
        );
    }
}
