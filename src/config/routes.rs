//! The sections of routes, and what a route may say of its backend.
//!
//! Knows the keys and their types; the grammars of targets and matches are those of flags too.

use std::str::FromStr;

use serde_json::json;

use super::file::{Map, Node, Reader};
use super::read::HOST;
use super::scalar::{HOUR, LIMIT, SWITCH, ScalarKind, TEXT, YEAR, duration, duration_or_0};
use super::sessions::{SESSIONS, STANDALONE_GET};
use super::target::{duplicate, parse_host, parse_match, parse_target};
use super::{
    Cards, ClientTls, Config, DefaultRouteConfig, Limits, RouteConfig, RouteTarget, SessionMode,
    Target,
};

/// Whether a backend is told `x-kagent-host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KagentHost {
    /// It is not: it is the backend that the header names.
    Remove,
    /// It is another kagent-proxy, which finds the backend. Sessions and errors are that one's too.
    Pass,
}

impl Reader<'_> {
    pub(super) fn routes(
        &mut self,
        map: &mut Map<'_>,
        config: &mut Config,
        inherited: &RouteTarget,
    ) {
        for (node, path, shown) in self.items(map, "routes", &mut config.routes).unwrap_or_default()
        {
            let mut item = self.map(node, &path);
            let (matched, mut to) = match shown {
                Some(RouteConfig { host, prefix, to }) => (Some((host, prefix)), to),
                None => (None, inherited.clone()),
            };
            let matched = self.value(&mut item, "match", matched, MATCH);
            if matched.is_none() {
                self.fault(node.line(), &path, "has no usable match; write `match: helper.team-a`");
            }
            self.show_below(&mut item, "to");
            let leads = self.targets(&mut item, node, &path, &mut to.targets);
            self.route_options(&mut item, &mut to);
            self.end(&item);
            let (Some((host, prefix)), true) = (matched, leads) else { continue };
            let route = RouteConfig { host, prefix, to };
            if config.routes.iter().any(|old| old.host == route.host && old.prefix == route.prefix)
            {
                self.fault(node.line(), &path, &duplicate(&route));
            }
            config.routes.push(route);
        }
    }

    pub(super) fn default_routes(
        &mut self,
        map: &mut Map<'_>,
        config: &mut Config,
        inherited: &RouteTarget,
    ) {
        let items = self.items(map, "defaultRoutes", &mut config.default_routes);
        for (node, path, shown) in items.unwrap_or_default() {
            let mut item = self.map(node, &path);
            let (host, listener, mut to) = match shown {
                Some(DefaultRouteConfig { host, listener, to }) => (host, listener, to),
                None => (None, None, inherited.clone()),
            };
            // `host` is the match here, so the upstream Host is inherited from `routeDefaults`.
            let host = self.value(&mut item, "host", host, HOST);
            let listener = self.value(&mut item, "listener", listener, TEXT);
            self.show_below(&mut item, "to");
            let leads = self.targets(&mut item, node, &path, &mut to.targets);
            if self.shows() {
                self.set(&mut item, "host", &mut to.host_header, AUTHORITY);
            }
            self.shared_options(&mut item, &mut to);
            self.end(&item);
            if leads {
                config.default_routes.push(DefaultRouteConfig { host, listener, to });
            }
        }
    }

    /// Whether all of them can be used.
    fn targets(
        &mut self,
        item: &mut Map<'_>,
        node: &Node,
        path: &str,
        targets: &mut Vec<Target>,
    ) -> bool {
        let count = self.scalars(item, "targets", targets, TARGET).unwrap_or_default();
        if count == 0 {
            self.fault(
                node.line(),
                path,
                "has no targets; write `targets: [http://localhost:8080]`",
            );
        }
        count > 0 && targets.len() == count
    }

    pub(super) fn route_options(&mut self, map: &mut Map<'_>, to: &mut RouteTarget) {
        self.set(map, "host", &mut to.host_header, AUTHORITY);
        self.shared_options(map, to);
    }

    fn shared_options(&mut self, map: &mut Map<'_>, to: &mut RouteTarget) {
        self.client_tls(map, &mut to.tls);
        self.set(map, "cards", &mut to.cards, CARDS);
        let mut upgrades = vec![Websocket; usize::from(to.websocket)];
        if let Some(count) = self.scalars(map, "upgrades", &mut upgrades, UPGRADE) {
            to.websocket = count > 0;
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
        self.set(map, "kagentHost", &mut to.kagent_host, KAGENT_HOST);
        if to.kagent_host == KagentHost::Pass {
            // Two proxies that look after one session would do all of it twice.
            to.sessions = SessionMode::Pass;
        }
    }

    pub(super) fn client_tls(&mut self, map: &mut Map<'_>, tls: &mut ClientTls) {
        let Some(mut section) = self.section(map, "tls") else { return };
        let ca = self.secret(&mut section, "ca", "caFile", tls.ca.as_ref());
        tls.ca = ca.or_else(|| tls.ca.take());
        let cert = self.secret(&mut section, "cert", "certFile", tls.cert.as_ref());
        let key = self.secret(&mut section, "key", "keyFile", tls.key.as_ref());
        if cert.is_some() != key.is_some() {
            let line = self.key_line(map, "tls");
            self.fault(
                line,
                &section.join("certFile"),
                "certificate and key go together; write `certFile` and `keyFile`",
            );
        } else if cert.is_some() {
            (tls.cert, tls.key) = (cert, key);
        }
        let name = ScalarKind::optional(|text| parse_host(text).map(Some));
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
}

const TARGET: ScalarKind<Target> = ScalarKind::text(parse_target);
const MATCH: ScalarKind<(String, String)> =
    ScalarKind::text_shown(parse_match, |_, (host, prefix)| {
        json!(format!("{host}{}", if prefix == "/" { "" } else { prefix }))
    });
const CARDS: ScalarKind<Cards> = ScalarKind::words(&["rewrite", "pass"], |text| match text {
    "rewrite" => Ok(Cards::Rewrite),
    "pass" => Ok(Cards::Pass),
    _ => Err(format!("{text:?} is not known; write rewrite or pass")),
});
const KAGENT_HOST: ScalarKind<KagentHost> =
    ScalarKind::words(&["remove", "pass"], |text| match text {
        "remove" => Ok(KagentHost::Remove),
        "pass" => Ok(KagentHost::Pass),
        _ => Err(format!("{text:?} is not known; write remove or pass")),
    });
/// The one upgrade there is.
#[derive(Clone, PartialEq)]
struct Websocket;

const UPGRADE: ScalarKind<Websocket> = ScalarKind::words(&["websocket"], |text| match text {
    "websocket" => Ok(Websocket),
    _ => Err(format!("{text:?} is not supported; write websocket or an empty list")),
});
const AUTHORITY: ScalarKind<Option<String>> =
    ScalarKind::optional(|text| match http::uri::Authority::from_str(text) {
        Ok(authority) if !authority.as_str().contains('@') => Ok(Some(text.to_owned())),
        _ => Err(format!("{text:?} is not a Host; write a name with an optional port")),
    });
