//! Whether a request's head can be read in one way only, as far as hyper leaves that open.
//!
//! hyper itself refuses a broken head line, differing lengths and a final coding other than `chunked`,
//! and of both framings it keeps `Transfer-Encoding` and closes afterwards. Knows one head; nothing of
//! routes or bodies.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

/// Refuses what two readers may understand differently.
///
/// # Errors
/// What is wrong with the head, as a clause.
pub fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let map = request.headers();
    host(map)?;
    let uri = request.uri();
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // RFC 9110 section 4.2.4, RFC 9113 section 8.3.1.
        return Err("its target has user information; send none");
    }
    let asterisk = uri.path() == "*" && request.method() == Method::OPTIONS;
    if !asterisk && !uri.path().starts_with('/') {
        return Err("its target is neither a path nor an absolute URL");
    }
    match request.version() {
        Version::HTTP_2 => same_host(map, uri),
        // RFC 9112 section 3.2; HTTP/1.0 has none.
        Version::HTTP_11 if !map.contains_key(HOST) => Err("it has no Host field; send one"),
        _ => transfer_encoding(map),
    }
}

/// One at most (RFC 9112 section 3.2), which names a host.
fn host(map: &HeaderMap) -> Result<(), &'static str> {
    let mut fields = map.get_all(HOST).iter();
    let Some(host) = fields.next() else { return Ok(()) };
    if fields.next().is_some() {
        return Err("it has several Host fields; send one");
    }
    let named = host.is_empty()
        || Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'));
    if named { Ok(()) } else { Err("its Host field is no host name") }
}

/// A field beside `:authority` that names another host is malformed (RFC 9113 section 8.3.1).
fn same_host(map: &HeaderMap, uri: &Uri) -> Result<(), &'static str> {
    let (Some(host), Some(authority)) = (map.get(HOST), uri.authority()) else { return Ok(()) };
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default);
    let same = |host: &Authority| {
        host.host().eq_ignore_ascii_case(authority.host()) && port(host) == port(authority)
    };
    if host.as_bytes() == authority.as_str().as_bytes()
        || Authority::try_from(host.as_bytes()).is_ok_and(|host| same(&host))
    {
        return Ok(());
    }
    Err("its Host field differs from its :authority; send one of them")
}

/// Nothing but `chunked`: the field is of this hop and not sent on, so any other coding would reach
/// the backend without its name (RFC 9112 section 6.1).
fn transfer_encoding(map: &HeaderMap) -> Result<(), &'static str> {
    let mut fields = map.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = fields.next() else { return Ok(()) };
    if map.contains_key(CONTENT_LENGTH) {
        return Err("it has both Content-Length and Transfer-Encoding; send one");
    }
    if fields.next().is_some() || !is_chunked(coding) {
        return Err("its Transfer-Encoding is not just \"chunked\"; send no other coding");
    }
    Ok(())
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(target: &str, fields: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap()).err()
    }

    #[test]
    fn what_reads_in_one_way_passes() {
        for fields in [
            &[("host", "")][..],
            &[("host", "a_b.ns:80"), ("content-length", "3")],
            &[("host", "[::1]:80"), ("transfer-encoding", "Chunked")],
        ] {
            assert_eq!(says("/x?y", fields), None, "{fields:?}");
            assert_eq!(says("http://elsewhere/x", fields), None, "{fields:?}");
        }
    }

    #[test]
    fn what_reads_in_two_ways_does_not() {
        for (fields, part) in [
            (&[][..], "no Host"),
            (&[("host", "a"), ("host", "a")], "several Host"),
            (&[("host", "u@a")], "no host name"),
            (&[("host", "a b")], "no host name"),
            (&[("host", "a"), ("content-length", "3"), ("transfer-encoding", "chunked")], "both"),
            (&[("host", "a"), ("transfer-encoding", "gzip, chunked")], "not just"),
            (&[("host", "a"), ("transfer-encoding", "chunked, chunked")], "not just"),
            (
                &[
                    ("host", "a"),
                    ("transfer-encoding", "identity"),
                    ("transfer-encoding", "chunked"),
                ],
                "not just",
            ),
        ] {
            let said = says("/", fields).unwrap_or_default();
            assert!(said.contains(part), "{fields:?}: {said:?}");
        }
        assert!(says("a.ns:80", &[]).is_some_and(|said| said.contains("target")));
        let user = says("http://u@elsewhere/x", &[("host", "elsewhere")]).unwrap_or_default();
        assert!(user.contains("user information"), "{user:?}");
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let asterisk = |method| {
                let request = Request::builder().uri("*").method(method).version(version);
                check(&request.header(HOST, "a").body(()).unwrap())
            };
            assert!(asterisk("OPTIONS").is_ok());
            assert!(asterisk("GET").is_err_and(|said| said.contains("target")), "{version:?}");
        }
    }

    #[test]
    fn only_http_1_1_needs_a_host() {
        for (version, passes) in
            [(Version::HTTP_10, true), (Version::HTTP_11, false), (Version::HTTP_2, true)]
        {
            let request = Request::builder().uri("/").version(version).body(()).unwrap();
            assert_eq!(check(&request).is_ok(), passes, "{version:?}");
        }
    }
}
