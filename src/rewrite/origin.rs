//! URLs that lead to the backend, and what is left of them without their origin.
//!
//! The one reader of URLs for all three rewrites: card, `Location` and `endpoint` event. Knows URLs and
//! host names; the caller judges which host is the backend's. It reads whatever some client follows:
//! RFC 3986 section 4 strictly, and what the WHATWG URL standard reads besides (backslashes, too many
//! or too few slashes, tabs and line ends inside, white space around, an encoded host). A path, a query
//! or a fragment alone stays on the proxy anyway and is no match. The port is not compared: a backend
//! has one host, and often believes in another port than its Service's.

use std::net::IpAddr;
use std::ops::Range;

use percent_encoding::percent_decode;

use crate::authority;

/// Where the parts of a URL that leads to the backend stand in its text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Where the scheme begins, or the slashes that stand without one.
    pub(super) start: usize,
    /// User, password and `@`; empty if there is none.
    pub(super) userinfo: Range<usize>,
    /// Where path, query or fragment begins, if there is any.
    pub(super) path: usize,
    /// Where white space begins that is not part of the URL.
    pub(super) end: usize,
    /// The port, its scheme's own if none is written.
    pub(super) port: u16,
}

/// Reads a URL that has a host: absolute, or a network-path reference (`//host/path`). `None` for every
/// other text, and for hosts that are not the backend's.
///
/// `backend` judges a host name in lower case without a last dot, or an IP address in its shortest form
/// without brackets. `localhost` and loopback and unspecified addresses are the backend's in any case.
pub(super) fn leads_to(url: &[u8], backend: &dyn Fn(&str) -> bool) -> Option<Parts> {
    let start = url.iter().position(|byte| *byte > b' ')?;
    let end = url.iter().rposition(|byte| *byte > b' ')? + 1;
    let url = url.get(..end)?;
    let authority = authority_start(url, start)?;
    let length = url.get(authority..)?.iter().position(|byte| b"/\\?#".contains(byte));
    let path = length.map_or(end, |length| authority + length);
    let at_sign = url.get(authority..path)?.iter().rposition(|byte| *byte == b'@');
    let userinfo = authority..at_sign.map_or(authority, |at| authority + at + 1);
    let place = url.get(userinfo.end..path)?;
    let host = host(place)?;
    let secure = url.get(start..start + 5).is_some_and(|name| name.eq_ignore_ascii_case(b"https"));
    let port = port(place).unwrap_or(if secure { 443 } else { 80 });
    (is_own_machine(&host) || backend(&host)).then_some(Parts { start, userinfo, path, end, port })
}

/// Reads a target of gRPC that leads to the backend: `host:port`, perhaps behind `dns:` or `dns:///`
/// (github.com/grpc/grpc, doc/naming.md). What is returned has neither scheme nor userinfo nor path.
pub(super) fn target_of(text: &[u8], backend: &dyn Fn(&str) -> bool) -> Option<Parts> {
    let start = text.iter().position(|byte| *byte > b' ')?;
    let end = text.iter().rposition(|byte| *byte > b' ')? + 1;
    let whole = text.get(start..end)?;
    let bare = ["dns:///", "dns:"].iter().find_map(|scheme| whole.strip_prefix(scheme.as_bytes()));
    let bare = bare.unwrap_or(whole);
    if bare.iter().any(|byte| b"/\\?#@%".contains(byte)) {
        return None;
    }
    let (host, port) = (host(bare)?, port(bare)?);
    let start = end - bare.len();
    let parts = Parts { start, userinfo: start..start, path: end, end, port };
    (is_own_machine(&host) || backend(&host)).then_some(parts)
}

/// The port of `host:port`.
fn port(text: &[u8]) -> Option<u16> {
    let text = text.iter().copied().filter(|byte| !is_ignored(*byte)).collect();
    let text = String::from_utf8(text).ok()?;
    authority::split(&text).1.and_then(authority::port)
}

/// The same URL as a reference that stays on the origin it is read from (RFC 3986 section 4.2): it begins
/// with one slash. Path, query and fragment stay as written; user and password go.
#[must_use]
pub fn path_absolute(url: &[u8], backend: &dyn Fn(&str) -> bool) -> Option<Vec<u8>> {
    let parts = leads_to(url, backend)?;
    let rest = url.get(parts.path..parts.end)?.iter().copied();
    let mut path: Vec<u8> = rest.filter(|byte| !is_ignored(*byte)).collect();
    match (path.first().copied(), path.get(1).copied()) {
        // Two slashes would name another host.
        (Some(b'/' | b'\\'), Some(b'/' | b'\\')) => {
            path.splice(..1, *b"/./");
        }
        (Some(b'/' | b'\\'), _) => {
            path.splice(..1, *b"/");
        }
        _ => path.insert(0, b'/'),
    }
    Some(path)
}

/// Where the authority begins: behind `http:` or `https:` and any slashes, or behind two slashes or more.
fn authority_start(url: &[u8], start: usize) -> Option<usize> {
    let text = url.get(start..)?;
    let mark = text.iter().position(|byte| b":/\\?#".contains(byte))?;
    let (name, behind) = text.split_at(mark);
    let has_scheme = behind.first() == Some(&b':');
    let slashes = behind.get(usize::from(has_scheme)..)?;
    let run = slashes.iter().take_while(|byte| is_slash(**byte) || is_ignored(**byte));
    let (length, count) =
        run.fold((0, 0), |(length, count), byte| (length + 1, count + u32::from(is_slash(*byte))));
    let is_network_path = !has_scheme && name.is_empty() && count >= 2;
    let is_http = has_scheme && is_http(name);
    (is_http || is_network_path).then_some(start + mark + usize::from(has_scheme) + length)
}

fn is_http(scheme: &[u8]) -> bool {
    let name: Vec<u8> = scheme.iter().copied().filter(|byte| !is_ignored(*byte)).collect();
    name.eq_ignore_ascii_case(b"http") || name.eq_ignore_ascii_case(b"https")
}

/// The host of `host[:port]` in the one form in which hosts are compared: as clients read it, with an encoded host and an
/// empty port too, which nothing that people write may have.
fn host(text: &[u8]) -> Option<String> {
    let text = text.iter().copied().filter(|byte| !is_ignored(*byte)).collect();
    let text = String::from_utf8(text).ok()?;
    let (host, port) = authority::split(&text);
    let host = match host.strip_prefix('[') {
        Some(literal) => {
            let address: std::net::Ipv6Addr = literal.strip_suffix(']')?.parse().ok()?;
            address.to_string()
        }
        None => {
            let host = percent_decode(host.as_bytes()).decode_utf8().ok()?.to_ascii_lowercase();
            host.strip_suffix('.').unwrap_or(&host).to_owned()
        }
    };
    let has_port = port.is_none_or(|port| port.is_empty() || authority::port(port).is_some());
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical().to_string());
    let is_name = !host.is_empty() && !host.ends_with('.');
    (has_port && is_name).then(|| address.unwrap_or(host))
}

const fn is_slash(byte: u8) -> bool {
    matches!(byte, b'/' | b'\\')
}

/// Characters that the WHATWG URL standard removes from a URL before it is read.
const fn is_ignored(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r')
}

/// Hosts by which a backend can only mean its own machine (RFC 6761 section 6.3).
fn is_own_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(url: &[u8]) -> Option<Vec<u8>> {
        path_absolute(url, &|host| matches!(host, "tools.kagent" | "fd00::7" | "10.0.0.7"))
    }

    // The forms of URLs stand in tests/it/urls.rs, where all three uses are held to one table.
    #[test]
    fn white_space_around_and_bytes_that_are_no_text_are_read() {
        for (url, expected) in [
            (&b" \x01http://tools.kagent/mcp \n"[..], Some(&b"/mcp"[..])),
            (b"//tools.kagent/\xff", Some(b"/\xff")),
            (b"http://\xff@tools.kagent/", Some(b"/")),
            (b"http://tools.kagent\xff/", None),
            (b"http://tools.kagent\n/\n/x", Some(b"/.//x")),
            (b"http://[fd00:0::7]:1/x", Some(b"/x")),
            (b"http://[::ffff:10.0.0.7]/x", Some(b"/x")),
            (b"http://[fd00::7]x/", None),
            (b"http://tools.kagent:+8/", None),
            (b"http://tools.kagent:0008080/", Some(b"/")),
            (b" ", None),
            (b"", None),
            (b"http:", None),
            (b"http://@/", None),
            (b"http://:80/", None),
        ] {
            assert_eq!(path(url).as_deref(), expected, "{:?}", url.escape_ascii().to_string());
        }
    }

    #[test]
    fn the_parts_stand_where_the_url_has_them() {
        let parts = leads_to(b" http://u:p@tools.kagent:1/mcp ", &|host| host == "tools.kagent");
        assert_eq!(parts, Some(Parts { start: 1, userinfo: 8..12, path: 26, end: 30, port: 1 }));
        let parts = leads_to(b"//tools.kagent", &|_| true);
        assert_eq!(parts, Some(Parts { start: 0, userinfo: 2..2, path: 14, end: 14, port: 80 }));
        let port = |url: &[u8]| leads_to(url, &|_| true).map(|parts| parts.port);
        assert_eq!((port(b"HTTPS://a/"), port(b"https://a:8/")), (Some(443), Some(8)));
    }

    #[test]
    fn targets_of_grpc_are_a_host_and_a_port() {
        for (text, found) in [
            (&b"tools.kagent:50051"[..], Some((0, 50051))),
            (b" Tools.kagent.:1\n", Some((1, 1))),
            (b"dns:///tools.kagent:2", Some((7, 2))),
            (b"dns:tools.kagent:3", Some((4, 3))),
            (b"[::1]:4", Some((0, 4))),
            (b"localhost:5", Some((0, 5))),
            (b"other.kagent:50051", None),
            (b"tools.kagent", None),
            (b"tools.kagent:x", None),
            (b"tools.kagent:1/x", None),
            (b"dns://8.8.8.8/tools.kagent:1", None),
            (b"grpc://tools.kagent:1", None),
            (b"", None),
        ] {
            let parts = target_of(text, &|host| host == "tools.kagent");
            let parts = parts.map(|parts| (parts.start, parts.port));
            assert_eq!(parts, found, "{}", text.escape_ascii());
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_left_never_names_a_host(url in "(http)?[:/\\\\.?#@ht\ta\n]{0,20}") {
            if let Some(path) = path_absolute(url.as_bytes(), &|_| true) {
                proptest::prop_assert!(path.starts_with(b"/"));
                proptest::prop_assert_eq!(leads_to(&path, &|_| true), None, "{:?}", path);
            }
        }
    }
}
