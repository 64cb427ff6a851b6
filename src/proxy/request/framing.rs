//! Whether a request's head can be read in one way only, as far as hyper leaves that open.
//!
//! hyper itself refuses a broken head line, differing lengths and a final coding other than `chunked`,
//! and of both framings it keeps `Transfer-Encoding` and closes afterwards. Knows one head; nothing of
//! routes or bodies.

use http::header::TRANSFER_ENCODING;
use http::uri::{Authority, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Version};

use super::fields::Fields;
use crate::headers::names::Known;

/// Refuses what two readers may understand differently.
///
/// # Errors
/// What is wrong with the head, as a clause.
pub fn check<B>(request: &Request<B>, fields: &Fields) -> Result<(), &'static str> {
    host(fields)?;
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
        Version::HTTP_2 => same_host(fields, uri),
        // RFC 9112 section 3.2; HTTP/1.0 has none.
        Version::HTTP_11 if fields.host.is_none() => Err("it has no Host field; send one"),
        _ if fields.names.has(Known::TransferEncoding) => {
            transfer_encoding(fields, request.headers())
        }
        _ => Ok(()),
    }
}

/// One at most (RFC 9112 section 3.2), which names a host.
fn host(fields: &Fields) -> Result<(), &'static str> {
    if fields.several.has(Known::Host) {
        return Err("it has several Host fields; send one");
    }
    let Some(host) = &fields.host else { return Ok(()) };
    let named = host.is_empty()
        || is_plain(host.as_bytes())
        || Authority::try_from(host.as_bytes()).is_ok_and(|host| !host.as_str().contains('@'));
    if named { Ok(()) } else { Err("its Host field is no host name") }
}

/// Whether it is a name or an IPv4 address with a port or without, as nearly always: without the copy that
/// reading any authority takes.
fn is_plain(host: &[u8]) -> bool {
    let end = host.iter().position(|byte| *byte == b':').unwrap_or(host.len());
    let (name, port) = host.split_at(end);
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let numbered = match port {
        [] => true,
        [_, digits @ ..] => {
            (1..=5).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
    };
    !name.is_empty() && name.iter().all(named) && numbered
}

/// A field beside `:authority` that names another host is malformed (RFC 9113 section 8.3.1).
fn same_host(fields: &Fields, uri: &Uri) -> Result<(), &'static str> {
    let (Some(host), Some(authority)) = (&fields.host, uri.authority()) else { return Ok(()) };
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
fn transfer_encoding(fields: &Fields, map: &HeaderMap) -> Result<(), &'static str> {
    if fields.names.has(Known::ContentLength) {
        return Err("it has both Content-Length and Transfer-Encoding; send one");
    }
    let several = fields.several.has(Known::TransferEncoding);
    if several || !map.get(TRANSFER_ENCODING).is_some_and(is_chunked) {
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

    fn check_all(request: &Request<()>) -> Result<(), &'static str> {
        check(request, &Fields::of(request.headers()))
    }

    fn says(target: &str, fields: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check_all(&request.body(()).unwrap()).err()
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
            (&[("host", "a:80:80")], "no host name"),
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
                check_all(&request.header("host", "a").body(()).unwrap())
            };
            assert!(asterisk("OPTIONS").is_ok());
            assert!(asterisk("GET").is_err_and(|said| said.contains("target")), "{version:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_plain_host_is_one_by_the_grammar_too(host in "[a-zA-Z0-9._:@%-]{0,9}|[a-z.]{1,9}:[0-9]{0,6}") {
            if is_plain(host.as_bytes()) {
                let read = Authority::try_from(host.as_bytes());
                proptest::prop_assert!(read.is_ok_and(|read| !read.as_str().contains('@')), "{host:?}");
            }
        }
    }

    #[test]
    fn only_http_1_1_needs_a_host() {
        for (version, passes) in
            [(Version::HTTP_10, true), (Version::HTTP_11, false), (Version::HTTP_2, true)]
        {
            let request = Request::builder().uri("/").version(version).body(()).unwrap();
            assert_eq!(check_all(&request).is_ok(), passes, "{version:?}");
        }
    }
}
