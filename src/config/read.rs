//! From the tree of the file to the checked [`Config`], and back: one function for each section.
//!
//! With `config/routes.rs`, `config/discovery.rs`, `config/sessions.rs`, `config/sight.rs` and `config/traces.rs` the one
//! list of the keys and their types: a [`Reader`] that is asked for all of them reads a file, describes one or shows a
//! configuration. Knows nothing of the command line. Every fault is collected; what is wrong keeps its default, so that
//! the rest is looked at too.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::address::{parse_address, parse_loopback};
use super::file::{Map, Mode, Node, Reader};
use super::scalar::{
    DAY, HOUR, MIB, NETWORK, SWITCH, ScalarKind, TEXT, WORKERS, YEAR, duration, duration_or_0,
    number, parse_log_format, parse_log_level, parse_scheduler, size,
};
use super::sources::{ConfigFaults, Source, Sources};
use super::target::parse_host;
use super::{
    ClientTls, Config, Expose, KagentHost, ListenerConfig, RouteTarget, Secret, ServerTls,
};

/// Lays the file over the configuration; its text is read unless it is given.
pub(super) fn read_file(
    path: &Path,
    text: Option<&str>,
    config: &mut Config,
    sources: &mut Sources,
    faults: &mut ConfigFaults,
) {
    let read = || std::fs::read_to_string(path);
    let text = match text.map_or_else(read, |text| Ok(text.to_owned())) {
        Ok(text) => text,
        Err(error) => {
            let whole = Source::File(path.to_owned(), 0);
            return faults.add(
                &whole,
                "",
                format!("cannot be read: {error}; name a readable file with --config"),
            );
        }
    };
    let mut reader = Reader { file: path, sources, faults, mode: Mode::Read };
    if let Some(root) = reader.parse(&text) {
        read_root(&mut reader, &root, config);
    }
}

/// Asks for everything a tree may hold.
pub(super) fn read_root(reader: &mut Reader<'_>, root: &Node, config: &mut Config) {
    let mut map = reader.map(root, "");
    reader.listeners(&mut map, config);
    reader.limits(&mut map, config);
    reader.admin(&mut map, config);
    let mut inherited = RouteTarget::new(Vec::new());
    // What routes have inherited is shown where they have it.
    if !reader.shows()
        && let Some(mut defaults) = reader.section(&mut map, "routeDefaults")
    {
        reader.route_options(&mut defaults, &mut inherited);
        if inherited.kagent_host == KagentHost::Pass {
            let line = reader.key_line(&defaults, "kagentHost");
            let why = "pass is for single routes that lead to another kagent-proxy";
            reader.fault(line, "routeDefaults.kagentHost", why);
        }
        reader.end(&defaults);
    }
    reader.routes(&mut map, config, &inherited);
    reader.default_routes(&mut map, config, &inherited);
    reader.discovery(&mut map, config);
    config.discovery.inherited =
        RouteTarget { host_header: None, tls: ClientTls::default(), ..inherited };
    reader.upstream(&mut map, config);
    reader.sessions(&mut map, config);
    reader.sight(&mut map, config);
    reader.traces(&mut map, config);
    reader.top(&mut map, config);
    reader.end(&map);
}

impl Reader<'_> {
    fn listeners(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(items) = self.items(map, "listeners", &mut config.listeners) else { return };
        let mut listeners: Vec<ListenerConfig> = Vec::new();
        for (node, path, shown) in items {
            let mut item = self.map(node, &path);
            let name = shown.as_ref().map(|shown| shown.name.clone());
            let name = self.value(&mut item, "name", name, TEXT);
            let name = name.unwrap_or_else(|| "http".to_owned());
            let address = shown.as_ref().map(|shown| shown.address);
            let address = self.value(&mut item, "address", address, ADDRESS);
            let tls = shown.as_ref().and_then(|shown| shown.tls.as_ref());
            let tls = self
                .section_of(&mut item, "tls", tls)
                .and_then(|mut section| self.server_tls(&mut section, node, tls));
            self.end(&item);
            if listeners.iter().any(|old| old.name == name) {
                self.fault(
                    node.line(),
                    &path,
                    &format!("the name {name:?} is taken; write another `name`"),
                );
            }
            match address {
                Some(address) => listeners.push(ListenerConfig { name, address, tls }),
                None => self.fault(
                    node.line(),
                    &path,
                    "has no usable address; write `address: \"[::]:8080\"`",
                ),
            }
        }
        if listeners.is_empty() {
            let line = self.key_line(map, "listeners");
            self.fault(line, "listeners", "has no usable listener; write one or leave the key out");
        }
        config.listeners = listeners;
    }

    fn server_tls(
        &mut self,
        tls: &mut Map<'_>,
        node: &Node,
        shown: Option<&ServerTls>,
    ) -> Option<ServerTls> {
        let cert = self.secret(tls, "cert", "certFile", shown.map(|tls| &tls.cert));
        let key = self.secret(tls, "key", "keyFile", shown.map(|tls| &tls.key));
        let client_ca = shown.and_then(|tls| tls.client_ca.as_ref());
        let client_ca = self.secret(tls, "clientCa", "clientCaFile", client_ca);
        let mut require_client_cert = shown.is_some_and(|tls| tls.require_client_cert);
        self.set(tls, "requireClientCert", &mut require_client_cert, SWITCH);
        self.end(tls);
        if require_client_cert && client_ca.is_none() {
            self.fault(
                node.line(),
                &tls.join("requireClientCert"),
                "needs an authority; write `clientCaFile`",
            );
        }
        let (Some(cert), Some(key)) = (cert, key) else {
            self.fault(
                node.line(),
                &tls.join("certFile"),
                "certificate and key go together; write `certFile` and `keyFile`",
            );
            return None;
        };
        Some(ServerTls { cert, key, client_ca, require_client_cert })
    }

    /// Where both are given, the file wins. Shown by where it is, never by what it holds.
    pub(super) fn secret(
        &mut self,
        map: &mut Map<'_>,
        inline: &'static str,
        file: &'static str,
        shown: Option<&Secret>,
    ) -> Option<Secret> {
        let inline = self.value(map, inline, shown.cloned(), SECRET);
        if self.shows() {
            return inline;
        }
        self.value(map, file, None, SECRET_FILE).or(inline)
    }

    fn limits(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(mut section) = self.section(map, "listener") else { return };
        let limits = &mut config.listener;
        self.set(&mut section, "detect", &mut limits.detect, duration::<100, HOUR>());
        self.set(&mut section, "handshake", &mut limits.handshake, duration::<100, HOUR>());
        self.set(&mut section, "headRead", &mut limits.head_read, duration::<100, HOUR>());
        self.set(&mut section, "idle", &mut limits.idle, duration_or_0::<1000, YEAR>());
        self.set(&mut section, "maxHeadBytes", &mut limits.max_head_bytes, size::<4096, MIB>());
        self.set(
            &mut section,
            "maxHeadFields",
            &mut limits.max_head_fields,
            number::<16, 1000, _>(),
        );
        self.set(
            &mut section,
            "maxConnections",
            &mut limits.max_connections,
            number::<1, 1_000_000, _>(),
        );
        self.set(
            &mut section,
            "maxH2Streams",
            &mut limits.max_h2_streams,
            number::<1, 100_000, _>(),
        );
        self.set(&mut section, "maxH2Resets", &mut limits.max_h2_resets, number::<1, 100_000, _>());
        self.end(&section);
    }

    fn admin(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(mut section) = self.section(map, "admin") else { return };
        self.set(&mut section, "address", &mut config.admin.address, ADDRESS);
        self.set(&mut section, "local", &mut config.admin.local, ScalarKind::text(parse_loopback));
        self.set(&mut section, "expose", &mut config.admin.expose, EXPOSE);
        self.scalars(&mut section, "hosts", &mut config.admin.hosts, HOST);
        self.end(&section);
    }

    fn upstream(&mut self, map: &mut Map<'_>, config: &mut Config) {
        if let Some(mut section) = self.section(map, "upstream") {
            let upstream = &mut config.upstream;
            self.set(&mut section, "idle", &mut upstream.idle, duration::<0, DAY>());
            self.set(&mut section, "idleMax", &mut upstream.idle_max, duration::<0, DAY>());
            self.set(
                &mut section,
                "resolveEvery",
                &mut upstream.resolve_every,
                duration::<1000, DAY>(),
            );
            self.set(
                &mut section,
                "retryPercent",
                &mut upstream.retry_percent,
                number::<0, 100, _>(),
            );
            self.set(
                &mut section,
                "retryPerSecond",
                &mut upstream.retry_per_second,
                number::<0, 100_000, _>(),
            );
            self.set(
                &mut section,
                "maxHeadBytes",
                &mut upstream.max_head_bytes,
                size::<8192, MIB>(),
            );
            self.set(
                &mut section,
                "maxHeadFields",
                &mut upstream.max_head_fields,
                number::<16, 1000, _>(),
            );
            self.end(&section);
        }
        if let Some(mut section) = self.section(map, "hold") {
            self.set(&mut section, "max", &mut config.hold.max, number::<0, 1_000_000, _>());
            self.set(
                &mut section,
                "maxPerSource",
                &mut config.hold.max_per_source,
                number::<0, 1_000_000, _>(),
            );
            self.end(&section);
        }
    }

    fn top(&mut self, map: &mut Map<'_>, config: &mut Config) {
        if let Some(mut section) = self.section(map, "drain") {
            self.set(&mut section, "lag", &mut config.drain.lag, duration::<0, HOUR>());
            self.set(&mut section, "deadline", &mut config.drain.deadline, duration::<0, DAY>());
            self.end(&section);
        }
        if let Some(mut section) = self.section(map, "log") {
            self.set(
                &mut section,
                "format",
                &mut config.log.format,
                ScalarKind::words(&["json", "text"], parse_log_format),
            );
            self.set(
                &mut section,
                "level",
                &mut config.log.level,
                ScalarKind::text(parse_log_level),
            );
            self.set(&mut section, "access", &mut config.log.access, SWITCH);
            self.end(&section);
        }
        self.scalars(map, "trustedProxies", &mut config.trusted_proxies, NETWORK);
        let url = ScalarKind::optional(|text| public_url(text).map(Some));
        self.set(map, "publicUrl", &mut config.public_url, url);
        self.set(map, "clusterDomain", &mut config.cluster_domain, HOST);
        self.set(map, "workers", &mut config.workers, WORKERS);
        let schedulers = ScalarKind::words(&["shared", "perCore"], parse_scheduler);
        self.set(map, "scheduler", &mut config.scheduler, schedulers);
        self.set(map, "reloadEvery", &mut config.reload_every, duration_or_0::<10, DAY>());
    }
}

const ADDRESS: ScalarKind<SocketAddr> = ScalarKind::text(parse_address);
pub(super) const HOST: ScalarKind<String> = ScalarKind::text(parse_host);
const SECRET: ScalarKind<Secret> =
    ScalarKind::text_shown(|text| Ok(Secret::Inline(Arc::from(text))), shown_secret);
pub(super) const SECRET_FILE: ScalarKind<Secret> =
    ScalarKind::text_shown(|text| Ok(Secret::File(PathBuf::from(text))), shown_secret);

fn shown_secret(_: &ScalarKind<Secret>, secret: &Secret) -> Value {
    match secret {
        Secret::Inline(_) => json!("redacted"),
        Secret::File(path) => json!({ "file": path.display().to_string() }),
    }
}

const EXPOSE: ScalarKind<Expose> = ScalarKind::words(&["status", "all"], |text| match text {
    "status" => Ok(Expose::Status),
    "all" => Ok(Expose::All),
    _ => Err(format!("{text:?} is not known; write status or all")),
});
fn public_url(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?} is not the URL of a proxy; write http:// or https:// and a host, without path or query"
        )
    };
    let url = http::Uri::from_str(text).map_err(|_| wrong())?;
    let plain = url.path() == "/" && url.query().is_none() && !text.contains(['@', '#']);
    match (url.scheme_str(), url.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) if plain => {
            Ok(format!("{scheme}://{authority}"))
        }
        _ => Err(wrong()),
    }
}
