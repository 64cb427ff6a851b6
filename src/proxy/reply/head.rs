//! The headers of a response as the client gets them.
//!
//! Changes headers only; the one that names a session is for `session.rs`, and stands there before. Never reads a body.

use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode, Version};

use crate::config::KagentHost;
use crate::headers;
use crate::headers::names::{Known, Names};
use crate::proxy::way::Way;
use crate::rewrite::origin::path_absolute;

/// Takes out what concerns the backend's connection only, and what only we may say; keeps redirects on
/// the proxy. `names` are those of the response's fields.
pub fn rewrite<B>(response: &mut Response<B>, way: &Way, names: Names) {
    let map = response.headers_mut();
    if names.has_any(Names::HOP_BY_HOP) {
        headers::strip_hop_by_hop(map);
    }
    let next_is_proxy = || way.route.config.to.kagent_host == KagentHost::Pass;
    if names.has(Known::KagentProxyError) && !next_is_proxy() {
        // Only we may speak by it: a client must be able to tell our errors from a backend's.
        map.remove(headers::X_KAGENT_PROXY_ERROR);
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        headers::ask_for_websocket(response.headers_mut());
    } else if names.has(Known::Location) {
        stay_on_proxy(response, way);
    }
    *response.version_mut() = Version::HTTP_11;
}

/// A redirect to the backend becomes one on the origin the client uses: a Python client's POST
/// carries the backend's Host, so servers build their `Location` from it.
fn stay_on_proxy<B>(response: &mut Response<B>, way: &Way) {
    let Some(location) = response.headers().get(LOCATION) else { return };
    let is_backend = |host: &str| way.table.is_backend(host, &way.route);
    let path = path_absolute(location.as_bytes(), &is_backend);
    if let Some(path) = path.and_then(|path| HeaderValue::from_bytes(&path).ok()) {
        response.headers_mut().insert(LOCATION, path);
    }
}
