//! A `RemoteMCPServer`, as far as it says where a tool server is and how it is spoken to.
//!
//! Pure: JSON in, facts out.

use serde_json::Value;

use super::admits::{self, Admits};
use super::{Sessions, items, sessions, switch, text};
use crate::authority;

/// A `RemoteMCPServer`: its URL, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteServer {
    /// Scheme, `http` or `https`.
    pub https: bool,
    /// Host as written.
    pub host: String,
    /// Port, the scheme's own if none is written.
    pub port: u16,
    /// Path, `/` at least.
    pub path: String,
    /// Query without `?`.
    pub query: Option<String>,
    /// Legacy SSE.
    pub sse: bool,
    /// A literal `x-kagent-host` of its own.
    pub literal_host: Option<String>,
    /// It has an `x-kagent-host` whose value is not in the object.
    pub hides_host: bool,
    /// Trust toward the backend.
    pub tls: RemoteTls,
    /// `kagent-proxy.dev/sessions`.
    pub sessions: Option<Sessions>,
    /// Which namespaces may use it.
    pub admits: Admits,
    /// The names of the tools that the controller has found (`status.discoveredTools`).
    pub tools: Vec<Box<str>>,
}

/// `spec.tls` of a `RemoteMCPServer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RemoteTls {
    /// `disableVerify`.
    pub disable_verify: bool,
    /// `caCertSecretRef` and `caCertSecretKey`.
    pub ca_secret: Option<(String, String)>,
    /// `disableSystemCAs`.
    pub disable_system_cas: bool,
}

/// Reads it; `None` if its URL cannot be used.
pub(super) fn remote(json: &Value) -> Option<RemoteServer> {
    let (scheme, rest) = text(json, "/spec/url")?.split_once("://")?;
    let https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return None,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let host = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = authority::split(host);
    let port = match port {
        Some(port) => authority::port(port)?,
        None if https => 443,
        None => 80,
    };
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    let ours = |header: &&Value| {
        text(header, "/name").is_some_and(|name| name.eq_ignore_ascii_case("x-kagent-host"))
    };
    let hosts =
        || items(json, "/spec/headersFrom").filter(ours).map(|header| text(header, "/value"));
    let literal = hosts().flatten().find(|host| !host.is_empty());
    let ca = text(json, "/spec/tls/caCertSecretRef").filter(|name| !name.is_empty());
    let key = text(json, "/spec/tls/caCertSecretKey").filter(|key| !key.is_empty());
    let tools = items(json, "/status/discoveredTools").filter_map(|tool| text(tool, "/name"));
    Some(RemoteServer {
        tools: tools.map(Box::from).collect(),
        https,
        host: host.to_owned(),
        port,
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        query: query.filter(|query| !query.is_empty()).map(ToOwned::to_owned),
        sse: text(json, "/spec/protocol") == Some("SSE"),
        literal_host: literal.map(ToOwned::to_owned),
        hides_host: literal.is_none() && hosts().next().is_some(),
        tls: RemoteTls {
            disable_verify: switch(json, "/spec/tls/disableVerify"),
            ca_secret: ca.map(|name| (name.to_owned(), key.unwrap_or("ca.crt").to_owned())),
            disable_system_cas: switch(json, "/spec/tls/disableSystemCAs"),
        },
        sessions: sessions(json),
        admits: admits::admits(json),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_what_go_s_reader_of_urls_takes() {
        for (url, found) in [
            ("http://t.ns/mcp", Some(("t.ns", 80))),
            ("https://t.ns", Some(("t.ns", 443))),
            ("HTTP://u:p@t.ns:8084?x", Some(("t.ns", 8084))),
            ("http://[fd00::7]/", Some(("[fd00::7]", 80))),
            ("http://[fd00::7]:1/", Some(("[fd00::7]", 1))),
            ("http://t.ns:+80/", None),
            ("http://t.ns:65536/", None),
            ("http://t.ns:80:80/", None),
        ] {
            let read = remote(&json!({ "spec": { "url": url } }));
            let read = read.as_ref().map(|server| (server.host.as_str(), server.port));
            assert_eq!(read, found, "{url}");
        }
    }
}
