//! What holds when nobody says otherwise; the reasons stand beside the constants in `config.rs`.
//!
//! Knows only the types. `config/load.rs` lays what was given over these values.

use super::*;

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
            trusted_proxies: Vec::new(),
            public_url: None,
            cluster_domain: "cluster.local".to_owned(),
            discovery: Box::default(),
            drain: DrainConfig { lag: DEFAULT_DRAIN_LAG, deadline: DEFAULT_DRAIN_DEADLINE },
            log: LogConfig { format: LogFormat::Json, level: "info".to_owned(), access: true },
            workers: None,
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
            timeouts: Timeouts::default(),
            keep_alive: DEFAULT_KEEP_ALIVE,
            hold: HoldTimes { card: DEFAULT_HOLD_CARD, request: DEFAULT_HOLD_REQUEST },
        }
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
