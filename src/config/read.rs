//! From the tree of the file to the checked [`Config`]: one function for each section.
//!
//! Knows the keys and their types, not the command line. Every fault is collected; what is wrong
//! keeps its default, so that the rest is looked at too.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use super::address::{parse_address, parse_loopback};
use super::file::{Map, Node, Reader};
use super::scalar::{
    DAY, HOUR, Kind, LIMIT, MIB, NETWORK, SWITCH, Shape, TEXT, YEAR, duration, duration_or_0,
    number, parse_log_format, parse_log_level, parse_workers, size,
};
use super::sessions::{SESSIONS, STANDALONE_GET};
use super::sources::{ConfigFaults, Source, Sources};
use super::target::{duplicate, parse_host, parse_match, parse_target};
use super::{
    Cards, ClientTls, Config, DefaultRouteConfig, Expose, Limits, ListenerConfig, RouteConfig,
    RouteTarget, Secret, ServerTls, Target,
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
    let mut reader = Reader { file: path, sources, faults, outline: None };
    if let Some(root) = reader.parse(&text) {
        read_root(&mut reader, &root, config);
    }
}

/// Reads the whole tree; with an outline, asks for everything a tree may hold.
pub(super) fn read_root(reader: &mut Reader<'_>, root: &Node, config: &mut Config) {
    let mut map = reader.map(root, "");
    reader.listeners(&mut map, config);
    reader.limits(&mut map, config);
    reader.admin(&mut map, config);
    let mut inherited = RouteTarget::new(Vec::new());
    if let Some(mut defaults) = reader.section(&mut map, "routeDefaults") {
        reader.route_options(&mut defaults, &mut inherited);
        reader.end(&defaults);
    }
    reader.routes(&mut map, config, &inherited);
    reader.default_routes(&mut map, config, &inherited);
    reader.discovery(&mut map, config);
    config.discovery.inherited =
        RouteTarget { host_header: None, tls: ClientTls::default(), ..inherited };
    reader.upstream(&mut map, config);
    reader.sessions(&mut map, config);
    reader.top(&mut map, config);
    reader.end(&map);
}

impl Reader<'_> {
    fn listeners(&mut self, map: &mut Map<'_>, config: &mut Config) {
        let Some(items) = self.list(map, "listeners") else { return };
        let mut listeners: Vec<ListenerConfig> = Vec::new();
        for (node, path) in items {
            let mut item = self.map(node, &path);
            let name = self.value(&mut item, "name", TEXT).unwrap_or_else(|| "http".to_owned());
            let address = self.value(&mut item, "address", Kind::text(parse_address));
            let tls =
                self.section(&mut item, "tls").and_then(|mut tls| self.server_tls(&mut tls, node));
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
            let line = key_line(self, map, "listeners");
            self.fault(line, "listeners", "has no usable listener; write one or leave the key out");
        }
        config.listeners = listeners;
    }

    fn server_tls(&mut self, tls: &mut Map<'_>, node: &Node) -> Option<ServerTls> {
        let cert = self.secret(tls, "cert", "certFile");
        let key = self.secret(tls, "key", "keyFile");
        let client_ca = self.secret(tls, "clientCa", "clientCaFile");
        let require_client_cert = self.value(tls, "requireClientCert", SWITCH).unwrap_or(false);
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

    /// Where both are given, the file wins.
    fn secret(
        &mut self,
        map: &mut Map<'_>,
        inline: &'static str,
        file: &'static str,
    ) -> Option<Secret> {
        let inline =
            self.value(map, inline, Kind::text(|text| Ok(Secret::Inline(Arc::from(text)))));
        let file = self.value(map, file, Kind::text(|text| Ok(Secret::File(PathBuf::from(text)))));
        file.or(inline)
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
        self.set(&mut section, "address", &mut config.admin.address, Kind::text(parse_address));
        self.set(&mut section, "local", &mut config.admin.local, Kind::text(parse_loopback));
        self.set(&mut section, "expose", &mut config.admin.expose, EXPOSE);
        if let Some(items) = self.list(&mut section, "hosts") {
            let names = items.iter();
            let names =
                names.filter_map(|(node, path)| self.scalar(node, path, Kind::text(parse_host)));
            config.admin.hosts = names.collect();
        }
        self.end(&section);
    }

    fn routes(&mut self, map: &mut Map<'_>, config: &mut Config, inherited: &RouteTarget) {
        for (node, path) in self.list(map, "routes").unwrap_or_default() {
            let mut item = self.map(node, &path);
            let matched = self.value(&mut item, "match", Kind::text(parse_match));
            if matched.is_none() {
                self.fault(node.line(), &path, "has no usable match; write `match: helper.team-a`");
            }
            let to = self.route_target(&mut item, node, &path, inherited);
            self.end(&item);
            let (Some((host, prefix)), Some(to)) = (matched, to) else { continue };
            let route = RouteConfig { host, prefix, to };
            if config.routes.iter().any(|old| old.host == route.host && old.prefix == route.prefix)
            {
                self.fault(node.line(), &path, &duplicate(&route));
            }
            config.routes.push(route);
        }
    }

    fn default_routes(&mut self, map: &mut Map<'_>, config: &mut Config, inherited: &RouteTarget) {
        for (node, path) in self.list(map, "defaultRoutes").unwrap_or_default() {
            let mut item = self.map(node, &path);
            // `host` is the match here, so the upstream Host is inherited from `routeDefaults`.
            let host = self.value(&mut item, "host", Kind::text(parse_host));
            let listener = self.value(&mut item, "listener", TEXT);
            let mut to = inherited.clone();
            let targets = self.targets(&mut item, node, &path);
            self.shared_options(&mut item, &mut to);
            self.end(&item);
            let Some(targets) = targets else { continue };
            to.targets = targets;
            config.default_routes.push(DefaultRouteConfig { host, listener, to });
        }
    }

    fn route_target(
        &mut self,
        item: &mut Map<'_>,
        node: &Node,
        path: &str,
        inherited: &RouteTarget,
    ) -> Option<RouteTarget> {
        let mut to = inherited.clone();
        let targets = self.targets(item, node, path);
        self.route_options(item, &mut to);
        to.targets = targets?;
        Some(to)
    }

    fn targets(&mut self, item: &mut Map<'_>, node: &Node, path: &str) -> Option<Vec<Target>> {
        let items = self.list(item, "targets").unwrap_or_default();
        if items.is_empty() {
            self.fault(
                node.line(),
                path,
                "has no targets; write `targets: [http://localhost:8080]`",
            );
        }
        let count = items.len();
        let targets: Vec<_> = items
            .iter()
            .filter_map(|(node, path)| self.scalar(node, path, Kind::text(parse_target)))
            .collect();
        (count > 0 && targets.len() == count).then_some(targets)
    }

    fn route_options(&mut self, map: &mut Map<'_>, to: &mut RouteTarget) {
        self.set(map, "host", &mut to.host_header, AUTHORITY);
        self.shared_options(map, to);
    }

    fn shared_options(&mut self, map: &mut Map<'_>, to: &mut RouteTarget) {
        self.client_tls(map, &mut to.tls);
        self.set(map, "cards", &mut to.cards, CARDS);
        if let Some(upgrades) = self.list(map, "upgrades") {
            to.websocket = !upgrades.is_empty();
            for (node, path) in upgrades {
                self.scalar(node, &path, UPGRADE);
            }
        }
        if let Some(mut section) = self.section(map, "timeouts") {
            self.set(&mut section, "connect", &mut to.timeouts.connect, duration::<10, HOUR>());
            self.call_limits(&mut section, "unary", &mut to.timeouts.unary);
            self.call_limits(&mut section, "stream", &mut to.timeouts.stream);
            self.call_limits(&mut section, "upgrade", &mut to.timeouts.upgrade);
            self.end(&section);
        }
        self.set(map, "keepAlive", &mut to.keep_alive, duration_or_0::<1000, YEAR>());
        if let Some(mut section) = self.section(map, "hold") {
            self.set(&mut section, "card", &mut to.hold.card, duration::<0, HOUR>());
            self.set(&mut section, "request", &mut to.hold.request, duration::<0, HOUR>());
            self.set(&mut section, "session", &mut to.hold.session, duration::<0, HOUR>());
            self.end(&section);
        }
        self.set(map, "sessions", &mut to.sessions, SESSIONS);
        self.set(map, "standaloneGet", &mut to.standalone_get, STANDALONE_GET);
    }

    fn client_tls(&mut self, map: &mut Map<'_>, tls: &mut ClientTls) {
        let Some(mut section) = self.section(map, "tls") else { return };
        tls.ca = self.secret(&mut section, "ca", "caFile").or_else(|| tls.ca.take());
        let cert = self.secret(&mut section, "cert", "certFile");
        let key = self.secret(&mut section, "key", "keyFile");
        if cert.is_some() != key.is_some() {
            let line = key_line(self, map, "tls");
            self.fault(
                line,
                &section.join("certFile"),
                "certificate and key go together; write `certFile` and `keyFile`",
            );
        } else if cert.is_some() {
            (tls.cert, tls.key) = (cert, key);
        }
        let name = Kind::text(|text| parse_host(text).map(Some));
        self.set(&mut section, "serverName", &mut tls.server_name, name);
        self.set(&mut section, "insecureSkipVerify", &mut tls.insecure_skip_verify, SWITCH);
        self.end(&section);
    }

    fn call_limits(&mut self, map: &mut Map<'_>, key: &'static str, limits: &mut Limits) {
        let Some(mut section) = self.section(map, key) else { return };
        self.set(&mut section, "head", &mut limits.head, LIMIT);
        self.set(&mut section, "idle", &mut limits.idle, LIMIT);
        self.set(&mut section, "total", &mut limits.total, LIMIT);
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
                Kind::words(&["json", "text"], parse_log_format),
            );
            self.set(&mut section, "level", &mut config.log.level, Kind::text(parse_log_level));
            self.set(&mut section, "access", &mut config.log.access, SWITCH);
            self.end(&section);
        }
        if let Some(items) = self.list(map, "trustedProxies") {
            config.trusted_proxies =
                items.iter().filter_map(|(node, path)| self.scalar(node, path, NETWORK)).collect();
        }
        self.set(
            map,
            "publicUrl",
            &mut config.public_url,
            Kind::text(|text| public_url(text).map(Some)),
        );
        self.set(map, "clusterDomain", &mut config.cluster_domain, Kind::text(parse_host));
        self.set(map, "workers", &mut config.workers, WORKERS);
        self.set(map, "reloadEvery", &mut config.reload_every, duration_or_0::<10, DAY>());
    }
}

const EXPOSE: Kind<Expose> = Kind::words(&["status", "all"], |text| match text {
    "status" => Ok(Expose::Status),
    "all" => Ok(Expose::All),
    _ => Err(format!("{text:?} is not known; write status or all")),
});
const CARDS: Kind<Cards> = Kind::words(&["rewrite", "pass"], |text| match text {
    "rewrite" => Ok(Cards::Rewrite),
    "pass" => Ok(Cards::Pass),
    _ => Err(format!("{text:?} is not known; write rewrite or pass")),
});
const UPGRADE: Kind<()> = Kind::words(&["websocket"], |text| match text {
    "websocket" => Ok(()),
    _ => Err(format!("{text:?} is not supported; write websocket or an empty list")),
});
const AUTHORITY: Kind<Option<String>> =
    Kind::text(|text| match http::uri::Authority::from_str(text) {
        Ok(authority) if !authority.as_str().contains('@') => Ok(Some(text.to_owned())),
        _ => Err(format!("{text:?} is not a Host; write a name with an optional port")),
    });
const WORKERS: Kind<Option<NonZeroUsize>> = Kind {
    shape: Shape::Number { min: 1, max: 1024 },
    parse: |text| parse_workers(text).map(Some),
};

/// The line of a map's key.
fn key_line(reader: &Reader<'_>, map: &Map<'_>, key: &str) -> usize {
    match reader.sources.of(&map.join(key)) {
        Source::File(_, line) => line,
        _ => 0,
    }
}

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
