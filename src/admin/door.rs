//! Who may ask: not a page in a browser whose user has a port-forward open.
//!
//! Such a page reaches loopback by a name of its own (DNS rebinding) or by a request across origins. Both
//! show in headers that a page cannot choose: Host, Origin, Sec-Fetch-Site. Knows one head.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{HOST, HeaderName, ORIGIN};
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::answer::text;

/// Fetch Metadata: what a browser says of the page behind a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Answers who may ask.
pub(super) async fn guard(
    State(hosts): State<Arc<[String]>>,
    request: Request,
    next: Next,
) -> Response {
    match foreign(request.uri(), request.headers(), &hosts) {
        Some(why) => text(StatusCode::FORBIDDEN, format!("refused: {why}\n")),
        None => next.run(request).await,
    }
}

/// Why a request is not an operator's, if it is not. `hosts` are names besides `localhost` and addresses.
#[must_use]
fn foreign(uri: &Uri, headers: &HeaderMap, hosts: &[String]) -> Option<&'static str> {
    if headers.get_all(HOST).iter().nth(1).is_some() {
        return Some("it has several Host headers");
    }
    let field = headers.get(HOST).map(HeaderValue::as_bytes);
    let host = uri.authority().map(|authority| authority.as_str().as_bytes()).or(field);
    // No browser leaves it out.
    if host.is_some_and(|host| !is_ours(host, hosts)) {
        return Some(
            "its Host is no IP address, not localhost and not in admin.hosts (DNS rebinding)",
        );
    }
    if headers.get_all(ORIGIN).iter().any(|origin| !is_same(origin, host)) {
        return Some("its Origin is another one");
    }
    let own = |site: &HeaderValue| ["same-origin", "none"].iter().any(|own| site == own);
    if !headers.get_all(SEC_FETCH_SITE).iter().all(own) {
        return Some("Sec-Fetch-Site says that a page of another site has sent it");
    }
    None
}

fn is_ours(host: &[u8], hosts: &[String]) -> bool {
    let Ok(authority) = Authority::try_from(host) else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host().trim_end_matches('.');
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok()
        || hosts.iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Whether the origin is the host itself; `null` never is.
fn is_same(origin: &HeaderValue, host: Option<&[u8]>) -> bool {
    let authority = origin.as_bytes().split(|&byte| byte == b'/').nth(2);
    let plain = [&b"http://"[..], b"https://"].iter().any(|s| origin.as_bytes().starts_with(s));
    plain && authority.zip(host).is_some_and(|(origin, host)| origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(fields: &[(&str, &str)]) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        foreign(&Uri::from_static("/config"), &headers, &["proxy.example".to_owned()])
    }

    #[test]
    fn addresses_localhost_and_configured_names_may_ask() {
        for host in ["127.0.0.1:9091", "[::1]:9091", "10.1.2.3", "LOCALHOST:1", "Proxy.Example."] {
            assert_eq!(says(&[("host", host)]), None, "{host}");
            let origin = format!("http://{host}");
            assert_eq!(says(&[("host", host), ("origin", &origin)]), None, "{host}");
        }
        assert_eq!(says(&[]), None);
        assert_eq!(says(&[("host", "localhost"), ("sec-fetch-site", "none")]), None);
    }

    #[test]
    fn names_of_strangers_and_other_origins_may_not() {
        for host in
            ["", "page.example", "localhost.page.example", "u@localhost", "127.0.0.1.page.example"]
        {
            assert!(says(&[("host", host)]).is_some_and(|why| why.contains("Host")), "{host}");
        }
        for origin in [
            "null",
            "http://localhost:1",
            "https://page.example",
            "localhost:9091",
            "ftp://localhost:9091",
            "http://localhost:9091.page.example",
        ] {
            let fields = [("host", "localhost:9091"), ("origin", origin)];
            assert!(says(&fields).is_some_and(|why| why.contains("Origin")), "{origin}");
        }
        assert!(says(&[("origin", "http://localhost")]).is_some(), "an origin without a Host");
        for site in ["cross-site", "same-site", "", "x"] {
            let fields = [("host", "localhost"), ("sec-fetch-site", site)];
            assert!(says(&fields).is_some_and(|why| why.contains("Sec-Fetch")), "{site}");
        }
        assert!(says(&[("host", "localhost"), ("host", "localhost")]).is_some());
        let target = Uri::from_static("http://page.example/config");
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        assert!(foreign(&target, &headers, &[]).is_some(), "an absolute target is the Host");
    }
}
