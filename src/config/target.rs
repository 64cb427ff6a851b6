//! The grammars of TARGET, `[http|h2c|https]://host[:port]`, and of ROUTE,
//! `HOST[/prefix]=TARGET[,TARGET...]` (decision D22), and of the names in them.
//!
//! The same functions read the file, the flags and the environment. They know nothing of where the
//! text stood; the caller adds that. The results go into [`RouteConfig`].

use std::net::{IpAddr, Ipv6Addr};

use super::{RouteConfig, RouteTarget, Scheme, Target};
use crate::authority;
use crate::plain_path;

/// Reads one target.
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_target(text: &str) -> Result<Target, String> {
    let (scheme, authority) = match text.split_once("://") {
        None => (None, text),
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some(("h2c", rest)) => (Some(Scheme::H2c), rest),
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some((other, rest)) => {
            return Err(format!(
                "target {text:?} has the unknown scheme {other:?}; write http://{rest}, h2c://{rest} or https://{rest}"
            ));
        }
    };
    if let Some(at) = authority.find(['/', '?', '#', '@', '\\']) {
        let what = match authority.as_bytes().get(at) {
            Some(b'@') => "user information",
            Some(b'?') => "a query",
            Some(b'#') => "a fragment",
            _ => "a path",
        };
        return Err(format!(
            "target {text:?} has {what}; write only scheme, host and port (paths pass unchanged)"
        ));
    }
    let (host, port) = authority::split(authority);
    let port = port
        .map(|port| {
            authority::port(port).filter(|port| *port != 0).ok_or_else(|| {
                format!(
                    "target {text:?} has a malformed host or port; write host:8080 or [::1]:8080"
                )
            })
        })
        .transpose()?;
    let host = parse_address(host).ok_or_else(|| {
        format!("target {text:?} has a malformed host; write a DNS name, an IPv4 address or an IPv6 address in brackets")
    })?;
    let port = match (port, scheme) {
        (Some(port), _) => port,
        (None, Some(scheme)) => scheme.default_port(),
        (None, None) => {
            return Err(format!("target {text:?} has no port; write {host}:8080 or http://{host}"));
        }
    };
    Ok(Target { scheme: scheme.unwrap_or(Scheme::Http), host, port })
}

/// Reads several targets separated by commas. Never empty.
///
/// # Errors
/// As [`parse_target`], for the first one that is wrong.
pub fn parse_targets(text: &str) -> Result<Vec<Target>, String> {
    text.split(',').map(parse_target).collect()
}

/// Reads `HOST[/prefix]=TARGET[,TARGET...]` into a route with every default.
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_route(text: &str) -> Result<RouteConfig, String> {
    let (matched, targets) = text.split_once('=').ok_or_else(|| {
        format!(
            "route {text:?} has no target; write HOST=TARGET, such as helper.team-a=localhost:8080"
        )
    })?;
    let (host, prefix) = parse_match(matched)?;
    Ok(RouteConfig { host, prefix, to: RouteTarget::new(parse_targets(targets)?) })
}

/// Reads `HOST[/prefix]`; without a prefix it is `/`.
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_match(text: &str) -> Result<(String, String), String> {
    let at = text.find('/').unwrap_or(text.len());
    let (host, prefix) = text.split_at(at);
    let host = parse_host(host)?;
    if host.contains('_') || is_like_address(&host) {
        return Err(format!(
            "host {host:?} is refused in x-kagent-host, so no request can reach this route; write a name of letters, digits and hyphens such as helper.team-a"
        ));
    }
    Ok((host, parse_prefix(prefix)?))
}

/// Reads a DNS name as `x-kagent-host` carries it: lower-cased, without a trailing dot (D2).
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_host(text: &str) -> Result<String, String> {
    if text.contains(':') {
        return Err(format!(
            "host {text:?} has a port or is an IPv6 address; write the DNS name alone"
        ));
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "host {text:?} is an IP address; write the DNS name that x-kagent-host carries"
        ));
    }
    if is_dns_name(&host) {
        Ok(host)
    } else {
        Err(format!(
            "host {text:?} is not a DNS name; write labels of letters, digits and hyphens with dots between"
        ))
    }
}

/// A name without `.svc` and `.svc.<cluster domain>`, which go only from three or more labels: a
/// namespace may be called `svc` (D2).
#[must_use]
pub fn bare_host<'a>(name: &'a str, cluster_domain: &str) -> &'a str {
    let bare = name
        .strip_suffix(cluster_domain)
        .and_then(|rest| rest.strip_suffix(".svc."))
        .or_else(|| name.strip_suffix(".svc"));
    match bare {
        Some(bare) if bare.contains('.') => bare,
        _ => name,
    }
}

/// Whether two routes are for the same requests.
pub(super) fn is_same(one: &RouteConfig, other: &RouteConfig, domain: &str) -> bool {
    one.prefix == other.prefix && bare_host(&one.host, domain) == bare_host(&other.host, domain)
}

/// What is said of the second route for the same requests.
pub(super) fn duplicate(route: &RouteConfig) -> String {
    let prefix = if route.prefix == "/" { "" } else { &route.prefix };
    format!(
        "{}{prefix} is given twice; write one route with all its targets, separated by commas",
        route.host
    )
}

/// Reads a path prefix of whole segments (D3). Empty text and `/` are every path; a slash at the
/// end is dropped.
///
/// # Errors
/// Says what is wrong with the text and what to write.
pub fn parse_prefix(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "/" {
        return Ok("/".to_owned());
    }
    let wrong =
        |what: &str| Err(format!("prefix {text:?} {what}; write whole segments such as /docs"));
    let Some(path) = text.strip_prefix('/') else { return wrong("does not start with /") };
    if let Some(ambiguity) = plain_path::ambiguity(text) {
        return wrong(ambiguity);
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.bytes().any(|b| !b.is_ascii_graphic() || matches!(b, b'?' | b'#')) {
        return wrong("has a query, a fragment, a space or bytes that are not ASCII");
    }
    Ok(format!("/{path}"))
}

/// A DNS name in lower case or an IP address without brackets.
fn parse_address(host: &str) -> Option<String> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|ip| ip.to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    is_dns_name(&host).then_some(host)
}

/// Whether a name in lower case leads to an address without asking a name server: `localhost`, or any form
/// of an IPv4 address that resolvers take (inet_aton): 10.0.0.1, 0x7f000001, 127.1. A namespace may be
/// called 3, so one number is not enough.
#[must_use]
pub fn is_like_address(name: &str) -> bool {
    let number = |label: &[u8]| {
        let hex = label.strip_prefix(b"0x");
        hex.map_or_else(
            || label.iter().all(u8::is_ascii_digit),
            |hex| hex.iter().all(u8::is_ascii_hexdigit),
        )
    };
    let mut labels = name.as_bytes().split(|byte| *byte == b'.');
    name == "localhost" || name.ends_with(".localhost") || labels.all(number)
}

/// RFC 1123 labels; the underscore is let through because Docker Compose names carry it.
fn is_dns_name(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_targets() {
        for (text, shown) in [
            ("localhost:8080", "http://localhost:8080"),
            ("http://A.b.", "http://a.b"),
            ("h2c://x:81", "h2c://x:81"),
            ("https://foo.dev", "https://foo.dev"),
            ("[::1]:8080", "http://[::1]:8080"),
            ("https://[0:0::1]", "https://[::1]"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
        ] {
            assert_eq!(parse_target(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn refuses_targets_and_says_why() {
        for (text, why) in [
            ("localhost", "has no port; write localhost:8080 or http://localhost"),
            ("ftp://x", "unknown scheme \"ftp\"; write http://x, h2c://x or https://x"),
            ("http://x/mcp", "has a path"),
            ("http://x/", "has a path"),
            ("x:80?a", "has a query"),
            ("u@x:80", "has user information"),
            ("x:0", "malformed host or port"),
            ("x:65536", "malformed host or port"),
            ("x:+80", "malformed host or port"),
            ("x:", "malformed host or port"),
            ("::1:80", "malformed host or port"),
            ("[::1:80", "malformed host"),
            ("[::1]x:80", "malformed host"),
            ("", "malformed host"),
            ("http://a b", "malformed host"),
        ] {
            let error = parse_target(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn reads_routes() {
        let route = parse_route("Helper.Team-A./docs/=a:1,https://b").unwrap();
        assert_eq!((route.host.as_str(), route.prefix.as_str()), ("helper.team-a", "/docs"));
        let shown: Vec<_> = route.to.targets.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["http://a:1", "https://b"]);
    }

    #[test]
    fn refuses_routes_and_says_why() {
        for (text, why) in [
            ("a", "has no target"),
            ("a=", "malformed host"),
            ("a=b:1,", "malformed host"),
            ("a:80=b:1", "has a port"),
            ("10.0.0.1=b:1", "is an IP address"),
            ("=b:1", "is not a DNS name"),
            ("a..b=b:1", "is not a DNS name"),
            ("a//x=b:1", "has an empty segment"),
            ("a/x/../y=b:1", "has a dot segment"),
            ("a/x%2Fy=b:1", "has a backslash or an encoded slash"),
            ("a/x y=b:1", "has a query, a fragment, a space"),
        ] {
            let error = parse_route(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(parse_prefix("docs").unwrap_err().contains("does not start with /"));
    }
}
