//! The effective configuration as JSON, for `/config` and `explain`: each value beside its source.
//!
//! Secrets are written by where they are, never by what they hold: an inline one has no other text
//! than `redacted`. Knows nothing of HTTP.

use serde_json::{Map, Value, json};

use super::sessions;
use super::units::{duration_text, size_text};
use super::{Cards, Expose, LogFormat};
use super::{Config, Limits, RouteTarget, Secret, Sources};
use crate::workers::Scheduler;

/// The configuration, and from path to source what was not left at its default.
#[must_use]
pub fn view(config: &Config, sources: &Sources) -> Value {
    let given = sources.iter().map(|(path, source)| (path.to_owned(), json!(source.to_string())));
    json!({ "config": values(config), "sources": Value::Object(given.collect::<Map<_, _>>()) })
}

fn values(config: &Config) -> Value {
    let limits = &config.listener;
    let listeners = config.listeners.iter().map(|listener| {
        let tls = listener.tls.as_ref().map(|tls| {
            json!({
                "cert": secret(&tls.cert), "key": secret(&tls.key),
                "clientCa": tls.client_ca.as_ref().map(secret), "requireClientCert": tls.require_client_cert,
            })
        });
        json!({ "name": listener.name, "address": listener.address.to_string(), "tls": tls })
    });
    let routes = config.routes.iter().map(|route| {
        let prefix = if route.prefix == "/" { "" } else { &route.prefix };
        json!({ "match": format!("{}{prefix}", route.host), "to": target(&route.to) })
    });
    let defaults = config.default_routes.iter().map(
        |route| json!({ "host": route.host, "listener": route.listener, "to": target(&route.to) }),
    );
    json!({
        "listeners": listeners.collect::<Vec<_>>(),
        "listener": {
            "detect": duration_text(limits.detect), "handshake": duration_text(limits.handshake),
            "headRead": duration_text(limits.head_read), "idle": duration_text(limits.idle),
            "maxHeadBytes": size_text(limits.max_head_bytes), "maxHeadFields": limits.max_head_fields,
            "maxConnections": limits.max_connections, "maxH2Streams": limits.max_h2_streams,
            "maxH2Resets": limits.max_h2_resets,
        },
        "admin": {
            "address": config.admin.address.to_string(),
            "local": config.admin.local.to_string(),
            "expose": match config.admin.expose { Expose::Status => "status", Expose::All => "all" },
            "hosts": config.admin.hosts,
        },
        "routes": routes.collect::<Vec<_>>(),
        "defaultRoutes": defaults.collect::<Vec<_>>(),
        "upstream": {
            "idle": duration_text(config.upstream.idle), "idleMax": duration_text(config.upstream.idle_max),
            "resolveEvery": duration_text(config.upstream.resolve_every),
            "retryPercent": config.upstream.retry_percent, "retryPerSecond": config.upstream.retry_per_second,
            "maxHeadBytes": size_text(config.upstream.max_head_bytes),
            "maxHeadFields": config.upstream.max_head_fields,
        },
        "hold": { "max": config.hold.max, "maxPerSource": config.hold.max_per_source },
        "sessions": sessions::view(&config.sessions),
        "trustedProxies": config.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "publicUrl": config.public_url,
        "clusterDomain": config.cluster_domain,
        "discovery": super::discovery::view(&config.discovery),
        "drain": { "lag": duration_text(config.drain.lag), "deadline": duration_text(config.drain.deadline) },
        "log": {
            "format": match config.log.format { LogFormat::Json => "json", LogFormat::Text => "text" },
            "level": config.log.level, "access": config.log.access,
        },
        "workers": config.workers,
        "scheduler": match config.scheduler {
            Scheduler::Shared => "shared",
            Scheduler::PerCore => "perCore",
        },
        "reloadEvery": duration_text(config.reload_every),
    })
}

fn target(to: &RouteTarget) -> Value {
    json!({
        "targets": to.targets.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "host": to.host_header,
        "tls": {
            "ca": to.tls.ca.as_ref().map(secret), "cert": to.tls.cert.as_ref().map(secret),
            "key": to.tls.key.as_ref().map(secret), "serverName": to.tls.server_name,
            "insecureSkipVerify": to.tls.insecure_skip_verify,
        },
        "cards": match to.cards { Cards::Rewrite => "rewrite", Cards::Pass => "pass" },
        "upgrades": if to.websocket { json!(["websocket"]) } else { json!([]) },
        "timeouts": {
            "connect": duration_text(to.timeouts.connect), "unary": call(&to.timeouts.unary),
            "stream": call(&to.timeouts.stream), "upgrade": call(&to.timeouts.upgrade),
        },
        "keepAlive": duration_text(to.keep_alive),
        "hold": {
            "card": duration_text(to.hold.card), "request": duration_text(to.hold.request),
            "session": duration_text(to.hold.session),
        },
        "sessions": sessions::mode_word(to.sessions),
        "standaloneGet": sessions::standalone_word(to.standalone_get),
    })
}

fn call(limits: &Limits) -> Value {
    let text = |limit: Option<_>| duration_text(limit.unwrap_or_default());
    json!({ "head": text(limits.head), "idle": text(limits.idle), "total": text(limits.total) })
}

fn secret(secret: &Secret) -> Value {
    match secret {
        Secret::Inline(_) => json!("redacted"),
        Secret::File(path) => json!({ "file": path.display().to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ListenerConfig, RouteConfig, ServerTls, Source, Target};
    use super::*;

    #[test]
    fn shows_values_and_sources_and_no_secret() {
        let mut config = Config::sidecar();
        let hidden = || Secret::Inline("hunter2".into());
        let tls = ServerTls {
            cert: hidden(),
            key: hidden(),
            client_ca: Some(hidden()),
            require_client_cert: true,
        };
        config.listeners.push(ListenerConfig {
            name: "tls".to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            tls: Some(tls),
        });
        let scheme = super::super::Scheme::Https;
        let mut to = RouteTarget::new(vec![Target { scheme, host: "b".to_owned(), port: 443 }]);
        to.tls.key = Some(hidden());
        to.tls.ca = Some(Secret::File("ca.crt".into()));
        config.routes.push(RouteConfig { host: "a".to_owned(), prefix: "/x".to_owned(), to });
        let mut sources = Sources::default();
        sources.set("workers", Source::Flag("--workers"));
        let shown = view(&config, &sources);
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
        assert_eq!(shown["config"]["listeners"][1]["tls"]["key"], "redacted");
        assert_eq!(shown["config"]["routes"][0]["match"], "a/x");
        assert_eq!(shown["config"]["routes"][0]["to"]["tls"]["ca"]["file"], "ca.crt");
        assert_eq!(shown["config"]["listener"]["idle"], "15m");
        assert_eq!(shown["sources"]["workers"], "--workers");
    }
}
