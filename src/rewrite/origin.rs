//! URLs that lead to the backend, and what is left of them without their origin.
//!
//! Knows URLs and host names; who is the backend, the caller judges. Used by the three rewrites
//! (card, `Location`, `endpoint` event), which put the result where it belongs.

use http::uri::{Authority, Uri};

/// What stands behind the origin of an absolute URL that leads to the backend: path, query and
/// fragment as written, possibly empty. `None` for every other text.
///
/// `backend` judges a lower-case host name; loopback and unspecified addresses are the backend's in any
/// case. Credentials in a URL are left alone.
pub(super) fn behind_origin<'u>(url: &'u str, backend: &dyn Fn(&str) -> bool) -> Option<&'u str> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority: Authority = authority.parse().ok()?;
    let uri =
        Uri::builder().scheme("http").authority(authority).path_and_query("/").build().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    let ours = !userinfo && (is_unroutable(&host) || backend(&host));
    ours.then_some(path)
}

/// The same as a reference that stays on the origin it is read from (RFC 3986 section 4.2): it begins
/// with one slash.
#[must_use]
pub fn path_absolute(url: &str, backend: &dyn Fn(&str) -> bool) -> Option<String> {
    let path = behind_origin(url, backend)?;
    Some(match path {
        // Two slashes would name another host.
        _ if path.starts_with("//") => format!("/.{path}"),
        _ if path.starts_with('/') => path.to_owned(),
        _ => format!("/{path}"),
    })
}

/// Addresses that a backend can only mean for its own machine.
fn is_unroutable(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_backend_s_urls_lose_their_origin() {
        let backend = |host: &str| host == "tools.kagent";
        for (url, path) in [
            ("http://tools.kagent:8084/mcp?x=1#f", Some("/mcp?x=1#f")),
            ("HTTPS://Tools.Kagent", Some("/")),
            ("http://tools.kagent?x", Some("/?x")),
            ("http://localhost:1/a", Some("/a")),
            ("http://[::1]/a", Some("/a")),
            ("http://0.0.0.0:8000/a", Some("/a")),
            ("http://tools.kagent//evil.example/", Some("/.//evil.example/")),
            ("http://other.kagent/a", None),
            ("http://u:p@tools.kagent/a", None),
            ("ftp://tools.kagent/a", None),
            ("/mcp", None),
            ("mcp", None),
            ("http://", None),
            ("", None),
        ] {
            assert_eq!(path_absolute(url, &backend).as_deref(), path, "{url}");
        }
    }
}
