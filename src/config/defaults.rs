//! What holds when nobody says otherwise, with the reason beside each value.
//!
//! Knows only the types.

use super::*;

/// Deadline for one dial, TCP and TLS and HTTP handshake together: a pod that does not take a
/// connection within two seconds is better replaced by another one.
pub const DEFAULT_CONNECT: Duration = Duration::from_secs(2);
/// Deadline for the first bytes of a connection and for a TLS handshake: long enough for a slow
/// network, short enough that silent connections do not pile up.
pub const DEFAULT_HANDSHAKE: Duration = Duration::from_secs(10);
/// Deadline for a whole request head, counted from its first byte.
pub const DEFAULT_HEAD_READ: Duration = Duration::from_secs(10);
/// How long a client connection may stay without a request: Go clients keep connections for ever and
/// do not resend a POST that races our close, so we close late.
pub const DEFAULT_CLIENT_IDLE: Duration = Duration::from_secs(15 * 60);
/// Bytes of a request head, request line and fields together.
pub const DEFAULT_MAX_HEAD_BYTES: usize = 64 * 1024;
/// Number of header fields of one request.
pub const DEFAULT_MAX_HEAD_FIELDS: usize = 128;
/// Client connections at once.
pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
/// Streams at once on one HTTP/2 client connection.
pub const DEFAULT_MAX_H2_STREAMS: u32 = 1_000;
/// Streams a client may reset before we have answered them (CVE-2023-44487); beyond it GOAWAY.
pub const DEFAULT_MAX_H2_RESETS: usize = 50;
/// An idle upstream connection is reused for at most this long: uvicorn closes at 5 s.
pub const DEFAULT_UPSTREAM_IDLE: Duration = Duration::from_secs(4);
/// Longest reuse that observation may reach.
pub const DEFAULT_UPSTREAM_IDLE_MAX: Duration = Duration::from_secs(55);
/// How often the names of targets are resolved again.
pub const DEFAULT_RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How long an agent card GET waits for a backend: the Go runtime asks once in its life.
pub const DEFAULT_HOLD_CARD: Duration = Duration::from_secs(20);
/// How long every other request waits for a backend.
pub const DEFAULT_HOLD_REQUEST: Duration = Duration::from_secs(2);
/// How long a request of a session waits for a server to come back: a pod that restarts takes longer than one
/// that rolls, and an agent whose session ends fails its turn.
pub const DEFAULT_HOLD_SESSION: Duration = Duration::from_secs(20);
/// How long a session's token is good: kagent 1.0 resumes agents a week later.
pub const DEFAULT_SESSION_MAX_AGE: Duration = Duration::from_secs(168 * 3600);
/// Requests held at once, all clients together.
pub const DEFAULT_MAX_HELD: usize = 1_000;
/// Series of the metrics of calls: some megabytes at most.
pub const DEFAULT_MAX_SERIES: usize = 20_000;
/// Requests held at once for one source address.
pub const DEFAULT_MAX_HELD_PER_SOURCE: usize = 100;
/// Silence after which an event stream gets a comment, so that clients' read limits do not end it.
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often secrets, certificates and static routes are looked at for a change.
pub const DEFAULT_RELOAD_EVERY: Duration = Duration::from_secs(2);
/// After SIGTERM: how long we go on accepting while the cluster learns that we are not ready.
pub const DEFAULT_DRAIN_LAG: Duration = Duration::from_secs(5);
/// After the lag: how long calls and streams may take to finish.
pub const DEFAULT_DRAIN_DEADLINE: Duration = Duration::from_secs(300);
/// Share of requests that may be retried, in percent of those sent.
pub const DEFAULT_RETRY_PERCENT: u32 = 20;
/// Retries allowed each second besides the share.
pub const DEFAULT_RETRY_PER_SECOND: u32 = 10;
/// `upstream.maxHeadBytes`: twice what requests may have, since backends are trusted more than clients.
pub const DEFAULT_UPSTREAM_MAX_HEAD_BYTES: usize = 128 * 1024;
/// `upstream.maxHeadFields`: as many as requests may have.
pub const DEFAULT_UPSTREAM_MAX_HEAD_FIELDS: usize = 128;
/// Port of the traffic listener in a cluster.
pub const DEFAULT_PORT: u16 = 8080;
/// Port of the traffic listener of a sidecar or a demo: an agent in the same pod has 8080.
pub const DEFAULT_SIDECAR_PORT: u16 = 8090;
/// Port of the admin listener.
pub const DEFAULT_ADMIN_PORT: u16 = 9090;
/// Port of the admin listener on loopback, which shows everything.
pub const DEFAULT_ADMIN_LOCAL_PORT: u16 = 9091;

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![ListenerConfig {
                name: "http".to_owned(),
                address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT),
                tls: None,
            }],
            listener: ListenerLimits::default(),
            admin: AdminConfig {
                address: SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_ADMIN_PORT),
                local: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_ADMIN_LOCAL_PORT),
                expose: Expose::Status,
                hosts: Vec::new(),
            },
            routes: Vec::new(),
            default_routes: Vec::new(),
            upstream: UpstreamConfig::default(),
            hold: HoldConfig { max: DEFAULT_MAX_HELD, max_per_source: DEFAULT_MAX_HELD_PER_SOURCE },
            sessions: SessionsConfig::default(),
            sight: SightConfig { calls: true, max_series: DEFAULT_MAX_SERIES },
            callers: Vec::new(),
            trusted_proxies: Vec::new(),
            public_url: None,
            cluster_domain: "cluster.local".to_owned(),
            discovery: Box::default(),
            drain: DrainConfig { lag: DEFAULT_DRAIN_LAG, deadline: DEFAULT_DRAIN_DEADLINE },
            log: LogConfig { format: LogFormat::Json, level: "info".to_owned(), access: true },
            traces: Box::default(),
            workers: None,
            scheduler: Scheduler::Shared,
            reload_every: DEFAULT_RELOAD_EVERY,
        }
    }
}

impl Config {
    /// The addresses of a sidecar for development: loopback, and not the agent's own port.
    #[must_use]
    pub fn sidecar() -> Self {
        let mut config = Self::default();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for listener in &mut config.listeners {
            listener.address = SocketAddr::new(loopback, DEFAULT_SIDECAR_PORT);
        }
        config.admin.address = SocketAddr::new(loopback, DEFAULT_ADMIN_PORT);
        config
    }
}

// === impl AdminConfig ===

impl AdminConfig {
    /// Where everything is shown.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        if self.address.ip().to_canonical().is_loopback() { self.address } else { self.local }
    }
}

// === impl ListenerLimits ===

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            detect: DEFAULT_HANDSHAKE,
            handshake: DEFAULT_HANDSHAKE,
            head_read: DEFAULT_HEAD_READ,
            idle: DEFAULT_CLIENT_IDLE,
            max_head_bytes: DEFAULT_MAX_HEAD_BYTES,
            max_head_fields: DEFAULT_MAX_HEAD_FIELDS,
            max_connections: DEFAULT_MAX_CONNECTIONS,
            max_h2_streams: DEFAULT_MAX_H2_STREAMS,
            max_h2_resets: DEFAULT_MAX_H2_RESETS,
        }
    }
}

// === impl UpstreamConfig ===

impl Default for UpstreamConfig {
    fn default() -> Self {
        Self {
            idle: DEFAULT_UPSTREAM_IDLE,
            idle_max: DEFAULT_UPSTREAM_IDLE_MAX,
            resolve_every: DEFAULT_RESOLVE_EVERY,
            retry_percent: DEFAULT_RETRY_PERCENT,
            retry_per_second: DEFAULT_RETRY_PER_SECOND,
            max_head_bytes: DEFAULT_UPSTREAM_MAX_HEAD_BYTES,
            max_head_fields: DEFAULT_UPSTREAM_MAX_HEAD_FIELDS,
        }
    }
}

// === impl RouteTarget ===

impl RouteTarget {
    /// A route to these targets with every default.
    #[must_use]
    pub fn new(targets: Vec<Target>) -> Self {
        Self {
            targets,
            host_header: None,
            tls: ClientTls::default(),
            cards: Cards::Rewrite,
            websocket: true,
            sessions: SessionMode::Revive,
            standalone_get: StandaloneGet::Pass,
            kagent_host: KagentHost::Remove,
            timeouts: Timeouts::default(),
            keep_alive: DEFAULT_KEEP_ALIVE,
            hold: HoldTimes {
                card: DEFAULT_HOLD_CARD,
                request: DEFAULT_HOLD_REQUEST,
                session: DEFAULT_HOLD_SESSION,
            },
        }
    }
}

// === impl SessionsConfig ===

impl Default for SessionsConfig {
    fn default() -> Self {
        Self { key_files: Vec::new(), peers: Vec::new(), max_age: DEFAULT_SESSION_MAX_AGE }
    }
}

// === impl Timeouts ===

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: DEFAULT_CONNECT,
            unary: Limits::default(),
            stream: Limits::default(),
            upgrade: Limits::default(),
        }
    }
}
