//! The configuration as the program uses it: plain data, already checked, every default filled in.
//!
//! What a user may write is listed in `config/read.rs`, where a value came from stands in `config/sources.rs`. This
//! file knows nothing of YAML, of the command line or of the environment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

mod address;
mod defaults;
mod discovery;
mod file;
mod overlay;
mod read;
mod routes;
mod scalar;
mod schema;
mod sessions;
mod show;
mod sight;
mod sources;
pub mod target;
mod traces;
pub mod units;

use crate::workers::Scheduler;
pub use defaults::*;
pub use discovery::{DiscoveryConfig, Endpoints, ServiceName};
pub use overlay::{Loaded, load, load_text};
pub use routes::KagentHost;
pub use schema::schema;
pub use sessions::{SessionsConfig, mode_of, mode_word};
pub use show::view;
pub use sight::{CallerConfig, SightConfig, Use};
pub use sources::{ConfigError, ConfigFaults, Source, Sources};
pub use traces::{OtlpProtocol, TracesConfig, headers_of};

/// Everything the program was told, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect. Never empty.
    pub listeners: Vec<ListenerConfig>,
    /// Limits and deadlines of every listener.
    pub listener: ListenerLimits,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Static routes, in the order written; `(host, prefix)` pairs are unique.
    pub routes: Vec<RouteConfig>,
    /// Routes for requests without `x-kagent-host`; the first that fits is taken.
    pub default_routes: Vec<DefaultRouteConfig>,
    /// Connections to backends.
    pub upstream: UpstreamConfig,
    /// Waiting for a backend that is not there yet.
    pub hold: HoldConfig,
    /// MCP sessions.
    pub sessions: SessionsConfig,
    /// Who calls what.
    pub sight: SightConfig,
    /// Agents by the addresses that they call from, besides those that discovery knows.
    pub callers: Vec<CallerConfig>,
    /// Peers whose `x-forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Scheme and authority that stand in rewritten agent cards, such as `http://proxy.kagent:8080`;
    /// without it the listener's scheme and the request's Host.
    pub public_url: Option<String>,
    /// The DNS suffix of the cluster, without dots at its ends.
    pub cluster_domain: String,
    /// Routes from the cluster's own objects.
    pub discovery: Box<DiscoveryConfig>,
    /// How the program ends.
    pub drain: DrainConfig,
    /// What is logged and how.
    pub log: LogConfig,
    /// What is traced, and where to.
    pub traces: Box<TracesConfig>,
    /// Threads that carry traffic; `None` is one for each core.
    pub workers: Option<NonZeroUsize>,
    /// Whether each of them has a scheduler of its own.
    pub scheduler: Scheduler,
    /// How often files named by the configuration are looked at for a change. Zero never.
    pub reload_every: Duration,
}

/// One traffic listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerConfig {
    /// Its name in logs, metrics and default routes; unique.
    pub name: String,
    /// The address to bind; port 0 takes a free one. `[::]` also takes IPv4 and falls back to
    /// `0.0.0.0` where there is no IPv6.
    pub address: SocketAddr,
    /// TLS, or plain text (HTTP/1.1 and HTTP/2 by prior knowledge).
    pub tls: Option<ServerTls>,
}

/// The server's side of TLS.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerTls {
    /// Certificate chain, PEM.
    pub cert: Secret,
    /// Private key, PEM.
    pub key: Secret,
    /// Authorities for client certificates, PEM; `None` asks for none.
    pub client_ca: Option<Secret>,
    /// Whether a client without a certificate is refused. Only with `client_ca`.
    pub require_client_cert: bool,
}

/// Bytes that must not be shown, from the configuration itself or from a file that is read again
/// whenever it changes. Where both were given, the file won.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Given in place.
    Inline(Arc<str>),
    /// In this file.
    File(PathBuf),
}

/// Limits and deadlines of client connections.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerLimits {
    /// Until the first bytes that tell HTTP/1 from HTTP/2.
    pub detect: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For one request head, from its first byte.
    pub head_read: Duration,
    /// For a connection without an open request. Zero is without limit.
    pub idle: Duration,
    /// Bytes of one request head.
    pub max_head_bytes: usize,
    /// Fields of one request head.
    pub max_head_fields: usize,
    /// Connections at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// Streams at once on one HTTP/2 connection.
    pub max_h2_streams: u32,
    /// Streams reset by the client and not yet answered on one HTTP/2 connection.
    pub max_h2_resets: usize,
}

/// The admin listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// The address for everyone: liveness, readiness and metrics.
    pub address: SocketAddr,
    /// The address for everything, on loopback. Not bound where `address` is on loopback itself.
    pub local: SocketAddr,
    /// What `address` shows.
    pub expose: Expose,
    /// Host names besides `localhost` under which everything may be asked, lower case.
    pub hosts: Vec<String>,
}

/// What the admin listener for everyone shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expose {
    /// `/livez`, `/readyz` and `/metrics`.
    Status,
    /// Everything.
    All,
}

/// One static route: a host, an optional path prefix, and where they lead.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// The host as `x-kagent-host` names it: lower case, no trailing dot, no port.
    pub host: String,
    /// Whole leading path segments, such as `/docs`; `/` is every path.
    pub prefix: String,
    /// Where it leads and how.
    pub to: RouteTarget,
}

/// A route for requests that carry no `x-kagent-host`.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultRouteConfig {
    /// Only requests with this Host (without its port), if given.
    pub host: Option<String>,
    /// Only requests on the listener of this name, if given.
    pub listener: Option<String>,
    /// Where it leads and how.
    pub to: RouteTarget,
}

/// The backend half of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteTarget {
    /// Where the endpoints are; never empty.
    pub targets: Vec<Target>,
    /// Host sent upstream instead of the target's authority.
    pub host_header: Option<String>,
    /// TLS toward `https` targets.
    pub tls: ClientTls,
    /// Whether agent cards are rewritten.
    pub cards: Cards,
    /// Whether `Upgrade: websocket` passes.
    pub websocket: bool,
    /// What is done for MCP sessions.
    pub sessions: SessionMode,
    /// Whether a session's own event stream is asked of the backend.
    pub standalone_get: StandaloneGet,
    /// Whether the backend is told `x-kagent-host`.
    pub kagent_host: KagentHost,
    /// The four time limits, per kind of call.
    pub timeouts: Timeouts,
    /// Silence after which an event stream gets a comment. Zero is never.
    pub keep_alive: Duration,
    /// Waiting for a backend.
    pub hold: HoldTimes,
}

/// One backend address as written: `[http|h2c|https]://host[:port]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// How to talk to it.
    pub scheme: Scheme,
    /// DNS name (lower case) or IP address (without brackets).
    pub host: String,
    /// Port, default filled in.
    pub port: u16,
}

/// How a backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in plain text.
    Http,
    /// HTTP/2 in plain text, by prior knowledge (RFC 9113 section 3.3).
    H2c,
    /// TLS; HTTP/2 where the backend selects it by ALPN, else HTTP/1.1.
    Https,
}

/// The client's side of TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTls {
    /// Authorities instead of the system's store, PEM.
    pub ca: Option<Secret>,
    /// The system's store besides these authorities: what a `RemoteMCPServer` asks for.
    pub system_too: bool,
    /// Our certificate chain, PEM.
    pub cert: Option<Secret>,
    /// Our private key, PEM.
    pub key: Option<Secret>,
    /// Name to ask for and to check instead of the target's host.
    pub server_name: Option<String>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
}

/// What happens to agent cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cards {
    /// URLs of the backend become ours.
    Rewrite,
    /// They pass as they are.
    Pass,
}

/// The four time limits of each kind of call.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeouts {
    /// One dial: TCP, TLS and HTTP handshake together.
    pub connect: Duration,
    /// Request and answer.
    pub unary: Limits,
    /// `text/event-stream` answers.
    pub stream: Limits,
    /// Upgraded connections.
    pub upgrade: Limits,
}

/// Time limits of one kind of call; `None` is without limit, which is the default: agents may think
/// for ten minutes without a byte, streams live for hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the request sent to the answer's head.
    pub head: Option<Duration>,
    /// Between bytes from upstream, once the head is there.
    pub idle: Option<Duration>,
    /// From the request's arrival to the answer's end.
    pub total: Option<Duration>,
}

/// How long a request waits for a backend that is known and cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldTimes {
    /// Agent card GETs.
    pub card: Duration,
    /// Everything else.
    pub request: Duration,
    /// Requests of an MCP session whose server is gone.
    pub session: Duration,
}

/// What is done for MCP sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionMode {
    /// Its requests reach its endpoint, and a session whose server is gone begins anew in place.
    Revive,
    /// Its requests reach its endpoint.
    Pin,
    /// Ids of sessions pass as they are.
    Pass,
}

/// What is done with the GET of a session's own event stream (MCP 2025-03-26, "Listening for Messages").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandaloneGet {
    /// It passes.
    Pass,
    /// 405, as servers without such a stream answer it.
    Refuse,
}

/// Bounds on held requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldConfig {
    /// All clients together.
    pub max: usize,
    /// One source address, for certain; it gets more while places are free.
    pub max_per_source: usize,
}

/// Connections to backends.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Reuse of an idle connection as long as nothing better is known of the endpoint.
    pub idle: Duration,
    /// Reuse that observation may reach.
    pub idle_max: Duration,
    /// How often names are resolved again.
    pub resolve_every: Duration,
    /// Share of requests that may be retried, in percent.
    pub retry_percent: u32,
    /// Retries each second besides the share.
    pub retry_per_second: u32,
    /// Bytes of one response's headers.
    pub max_head_bytes: usize,
    /// Fields of one response's headers.
    pub max_head_fields: usize,
}

/// How the program ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainConfig {
    /// Accepting goes on this long after readiness went off.
    pub lag: Duration,
    /// Calls may take this long to finish after the lag.
    pub deadline: Duration,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Shape of the lines.
    pub format: LogFormat,
    /// An `EnvFilter` directive list, such as `info` or `info,kagent_proxy::upstream=debug`.
    pub level: String,
    /// One line for each finished exchange.
    pub access: bool,
}

/// Shape of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

// === impl Secret ===

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(redacted)"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

// === impl Scheme ===

impl Scheme {
    /// The port that is left out of an authority (RFC 9110 section 4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http | Self::H2c => 80,
            Self::Https => 443,
        }
    }

    /// The scheme as a target spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::H2c => "h2c",
            Self::Https => "https",
        }
    }
}

// === impl Target ===

impl Target {
    /// Host and port as a `Host` header carries them: brackets around IPv6, default port left out.
    #[must_use]
    pub fn authority(&self) -> String {
        self.authority_of(&self.host)
    }

    /// The same for another name of it.
    #[must_use]
    pub fn authority_of(&self, host: &str) -> String {
        // Once for each request to a host of the cluster; the formatter costs more than the bytes.
        let mut text = String::with_capacity(host.len() + "[]:65535".len());
        let address = host.contains(':');
        text.extend(address.then_some('['));
        text.push_str(host);
        text.extend(address.then_some(']'));
        if self.port != self.scheme.default_port() {
            text.push(':');
            text.push_str(&self.port.to_string());
        }
        text
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}
