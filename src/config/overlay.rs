//! Puts flags, environment, file and defaults together into one [`Config`].
//!
//! The environment is handed in, so that nothing below `main` reads the process's own. Called once at
//! start and again for every reload, with the same arguments.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::address::{self, parse_address, parse_loopback};
use super::discovery::pod_ips;
use super::read::read_file;
use super::scalar::{parse_log_format, parse_log_level, parse_workers};
use super::sources::{ConfigFaults, Source, Sources};
use super::target::{duplicate, is_same, parse_route, parse_targets};
use super::traces;
use super::{Config, DefaultRouteConfig, ListenerConfig, RouteConfig, RouteTarget};
use crate::cli::ConfigArgs;

/// The variables we read. None is called port or service-anything: a kubelet puts those into pods
/// for a Service named `kagent-proxy` (D23).
const VARIABLES: [&str; 14] = [
    "KAGENT_PROXY_CONFIG",
    "KAGENT_PROXY_LISTEN",
    "KAGENT_PROXY_ADMIN",
    "KAGENT_PROXY_ADMIN_LOCAL",
    "KAGENT_PROXY_ROUTES",
    "KAGENT_PROXY_DEFAULT_ROUTE",
    "KAGENT_PROXY_DISCOVERY",
    "KAGENT_PROXY_KUBECONFIG",
    "KAGENT_PROXY_ZONE",
    "KAGENT_PROXY_POD_IPS",
    "KAGENT_PROXY_SESSION_KEY_FILES",
    "KAGENT_PROXY_LOG_FORMAT",
    "KAGENT_PROXY_LOG_LEVEL",
    "KAGENT_PROXY_WORKERS",
];

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where its values came from.
    pub sources: Sources,
    /// `KAGENT_PROXY_*` variables that are none of ours, for a debug line.
    pub ignored_env: Vec<String>,
    /// What is wrong with variables of OpenTelemetry, which are not used then.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// Loads the configuration; with routes but without a file, that of a sidecar on loopback.
///
/// # Errors
/// Every fault of file, environment and flags at once.
pub fn load(args: &ConfigArgs, env: &BTreeMap<String, String>) -> Result<Loaded, ConfigFaults> {
    load_text(args, env, None)
}

/// As [`load`], with the text of the file, which is not on this machine.
///
/// # Errors
/// As [`load`].
pub fn load_text(
    args: &ConfigArgs,
    env: &BTreeMap<String, String>,
    text: Option<&str>,
) -> Result<Loaded, ConfigFaults> {
    let given = Given { args, env, text };
    let alone =
        given.file().is_none() && !(given.routes().is_empty() && given.default_route().is_none());
    load_over(&given, if alone { Config::sidecar() } else { Config::default() })
}

fn load_over(given: &Given<'_>, config: Config) -> Result<Loaded, ConfigFaults> {
    let file = given.file();
    let mut build =
        OverlayBuild { config, sources: Sources::default(), faults: ConfigFaults::default() };
    if let Some((_, path)) = &file {
        read_file(path, given.text, &mut build.config, &mut build.sources, &mut build.faults);
    }
    build.listen(&given.listen());
    build.admin(given.one(given.args.admin.as_deref(), "--admin", "KAGENT_PROXY_ADMIN"));
    let local = given.args.admin_local.as_deref();
    build.admin_local(given.one(local, "--admin-local", "KAGENT_PROXY_ADMIN_LOCAL"));
    build.routes(&given.routes());
    build.default_route(given.default_route());
    build.discovery(given);
    build.session_keys(given.session_keys());
    build.log(
        given.one(given.args.log_format.as_deref(), "--log-format", "KAGENT_PROXY_LOG_FORMAT"),
        given.one(given.args.log_level.as_deref(), "--log-level", "KAGENT_PROXY_LOG_LEVEL"),
    );
    build.workers(given.one(given.args.workers.as_deref(), "--workers", "KAGENT_PROXY_WORKERS"));
    let warnings = traces::lay_over(
        &mut build.config.traces,
        (&mut build.sources, &mut build.faults),
        &|name| given.var(name),
    );
    build.default_listeners();
    build.unreachable_defaults();
    build.unbuilt();
    build.spellings();
    build.addresses();
    if !build.faults.0.is_empty() {
        return Err(build.faults);
    }
    Ok(Loaded {
        config: build.config,
        sources: build.sources,
        ignored_env: given.ignored(),
        warnings,
        file: file.map(|(_, path)| path),
    })
}

/// A value as text, with where it stood.
type Text<'a> = (Source, &'a str);

/// Flags before environment. An empty variable counts as absent.
struct Given<'a> {
    args: &'a ConfigArgs,
    env: &'a BTreeMap<String, String>,
    /// Of the file, if it is not to be read.
    text: Option<&'a str>,
}

/// The configuration while values are laid over it.
struct OverlayBuild {
    config: Config,
    sources: Sources,
    faults: ConfigFaults,
}

// === impl Given ===

impl<'a> Given<'a> {
    fn var(&self, name: &str) -> Option<&'a str> {
        self.env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    fn one(
        &self,
        flag: Option<&'a str>,
        flag_name: &'static str,
        var: &'static str,
    ) -> Option<Text<'a>> {
        let flag = flag.map(|value| (Source::Flag(flag_name), value));
        flag.or_else(|| self.var(var).map(|value| (Source::Env(var), value)))
    }

    fn many(
        &self,
        flags: &'a [String],
        flag_name: &'static str,
        var: &'static str,
    ) -> [Vec<Text<'a>>; 2] {
        let words = self.var(var).unwrap_or_default().split_whitespace();
        [
            words.map(|value| (Source::Env(var), value)).collect(),
            flags.iter().map(|value| (Source::Flag(flag_name), value.as_str())).collect(),
        ]
    }

    fn file(&self) -> Option<(Source, PathBuf)> {
        let flag = self.args.config.clone().map(|path| (Source::Flag("--config"), path));
        let var = "KAGENT_PROXY_CONFIG";
        flag.or_else(|| self.var(var).map(|path| (Source::Env(var), PathBuf::from(path))))
    }

    fn listen(&self) -> Vec<Text<'a>> {
        let [env, flags] = self.many(&self.args.listen, "--listen", "KAGENT_PROXY_LISTEN");
        if flags.is_empty() { env } else { flags }
    }

    /// Those of the environment first, so that flags win.
    fn routes(&self) -> Vec<Text<'a>> {
        self.many(&self.args.route, "--route", "KAGENT_PROXY_ROUTES").concat()
    }

    fn default_route(&self) -> Option<Text<'a>> {
        self.one(
            self.args.default_route.as_deref(),
            "--default-route",
            "KAGENT_PROXY_DEFAULT_ROUTE",
        )
    }

    fn session_keys(&self) -> Option<(Source, Vec<PathBuf>)> {
        let flags = &self.args.session_key_file;
        if !flags.is_empty() {
            return Some((Source::Flag("--session-key-file"), flags.clone()));
        }
        let var = "KAGENT_PROXY_SESSION_KEY_FILES";
        let files = self.var(var)?.split_whitespace().map(PathBuf::from).collect();
        Some((Source::Env(var), files))
    }

    fn ignored(&self) -> Vec<String> {
        let ours = |name: &&String| {
            name.starts_with("KAGENT_PROXY_") && !VARIABLES.contains(&name.as_str())
        };
        self.env.keys().filter(ours).cloned().collect()
    }
}

// === impl OverlayBuild ===

impl OverlayBuild {
    fn address(&mut self, (source, text): &Text<'_>, path: &str) -> Option<SocketAddr> {
        let address = parse_address(text);
        address.map_err(|reason| self.faults.add(source, path, reason)).ok()
    }

    /// Replaces all listeners.
    fn listen(&mut self, given: &[Text<'_>]) {
        let mut listeners = Vec::new();
        for (at, text) in given.iter().enumerate() {
            let Some(address) = self.address(text, &format!("listeners[{at}].address")) else {
                continue;
            };
            let name = if at == 0 { "http".to_owned() } else { format!("http-{}", at + 1) };
            listeners.push(ListenerConfig { name, address, tls: None });
        }
        if let Some((source, _)) = given.first() {
            self.sources.forget("listeners");
            self.sources.set("listeners", source.clone());
            self.config.listeners = listeners;
        }
    }

    fn admin(&mut self, given: Option<Text<'_>>) {
        let Some(text) = given else { return };
        if let Some(address) = self.address(&text, "admin.address") {
            self.config.admin.address = address;
            self.sources.set("admin.address", text.0);
        }
    }

    fn admin_local(&mut self, given: Option<Text<'_>>) {
        let Some((source, text)) = given else { return };
        match parse_loopback(text) {
            Ok(address) => {
                self.config.admin.local = address;
                self.sources.set("admin.local", source);
            }
            Err(reason) => self.faults.add(&source, "admin.local", reason),
        }
    }

    /// Adds routes; one of equal host and prefix is replaced, unless both came from the same place.
    fn routes(&mut self, given: &[Text<'_>]) {
        for (source, text) in given {
            let route = match parse_route(text) {
                Ok(route) => route,
                Err(reason) => {
                    self.faults.add(source, "routes", reason);
                    continue;
                }
            };
            let domain = self.config.cluster_domain.as_str();
            let Some(at) = self.config.routes.iter().position(|old| is_same(old, &route, domain))
            else {
                self.sources.set(format!("routes[{}]", self.config.routes.len()), source.clone());
                self.config.routes.push(route);
                continue;
            };
            let path = format!("routes[{at}]");
            if self.sources.of(&path) == *source {
                self.faults.add(source, "routes", duplicate(&route));
            } else if let Some(old) = self.config.routes.get_mut(at) {
                *old = route;
                self.sources.forget(&path);
                self.sources.set(path, source.clone());
            }
        }
    }

    /// The first default route that fits is taken, so one behind a wider one never is.
    fn unreachable_defaults(&mut self) {
        let wider = |a: &Option<String>, b: &Option<String>| a.is_none() || a == b;
        let routes = &self.config.default_routes;
        for (at, route) in routes.iter().enumerate() {
            let before = routes.iter().take(at).position(|old| {
                wider(&old.host, &route.host) && wider(&old.listener, &route.listener)
            });
            if let Some(before) = before {
                let path = format!("defaultRoutes[{at}]");
                let reason = format!(
                    "is never taken: defaultRoutes[{before}] comes first and fits all its requests; write this one before it"
                );
                let place = self.sources.of(&format!("{path}.targets"));
                self.faults.add(&place, path, reason);
            }
        }
    }

    /// Two listeners cannot have one address.
    fn addresses(&mut self) {
        for (path, reason) in address::conflicts(&self.config) {
            // Where nobody has written the one, somebody has written the other.
            let given = self.sources.get(&path).is_some() || path != "admin.local";
            let place = self.sources.of(if given { &path } else { "admin.address" });
            self.faults.add(&place, path, reason);
        }
    }

    /// A program without a client of Kubernetes cannot discover.
    fn unbuilt(&mut self) {
        if self.config.discovery.enabled && cfg!(not(feature = "kube")) {
            let path = "discovery.enabled";
            let reason = "is not in this program; build it with the feature kube";
            self.faults.add(&self.sources.of(path), path, reason);
        }
    }

    /// One host in two spellings is one host, and only one of its routes would ever be taken.
    fn spellings(&mut self) {
        let Config { routes, cluster_domain, .. } = &self.config;
        for (at, route) in routes.iter().enumerate() {
            let before = routes.iter().take(at);
            let other =
                |old: &&RouteConfig| old.host != route.host && is_same(old, route, cluster_domain);
            if let Some(old) = before.clone().find(other) {
                let path = format!("routes[{at}].match");
                let reason = format!("is {} in another spelling: {}", old.host, duplicate(route));
                self.faults.add(&self.sources.of(&path), path, reason);
            }
        }
    }

    /// Takes the place of the file's first route without conditions, or comes after all of them.
    fn default_route(&mut self, given: Option<Text<'_>>) {
        let Some((source, text)) = given else { return };
        let targets = match parse_targets(text) {
            Ok(targets) => targets,
            Err(reason) => return self.faults.add(&source, "defaultRoutes", reason),
        };
        let route =
            DefaultRouteConfig { host: None, listener: None, to: RouteTarget::new(targets) };
        let routes = &mut self.config.default_routes;
        let open = routes.iter().position(|old| old.host.is_none() && old.listener.is_none());
        let at = open.unwrap_or(routes.len());
        match routes.get_mut(at) {
            Some(old) => *old = route,
            None => routes.push(route),
        }
        let path = format!("defaultRoutes[{at}]");
        self.sources.forget(&path);
        self.sources.set(path, source);
    }

    /// Default routes may only name listeners that are there, after flags had their say.
    fn default_listeners(&mut self) {
        for (at, route) in self.config.default_routes.iter().enumerate() {
            let Some(name) = &route.listener else { continue };
            if !self.config.listeners.iter().any(|listener| listener.name == *name) {
                let path = format!("defaultRoutes[{at}].listener");
                let reason =
                    format!("there is no listener {name:?}; write the name of one in listeners");
                self.faults.add(&self.sources.of(&path), path, reason);
            }
        }
    }

    fn discovery(&mut self, given: &Given<'_>) {
        let discovery = &mut self.config.discovery;
        let switched = given.args.discovery.then_some((Source::Flag("--discovery"), "true"));
        if let Some((source, text)) = given
            .one(None, "", "KAGENT_PROXY_DISCOVERY")
            .filter(|_| switched.is_none())
            .or(switched)
        {
            match text.parse() {
                Ok(enabled) => {
                    discovery.enabled = enabled;
                    self.sources.set("discovery.enabled", source);
                }
                Err(_) => {
                    let reason = format!("{text:?} is not a switch; write true or false");
                    self.faults.add(&source, "discovery.enabled", reason);
                }
            }
        }
        let flag = given.args.kubeconfig.as_ref().and_then(|path| path.to_str());
        if let Some((source, text)) = given.one(flag, "--kubeconfig", "KAGENT_PROXY_KUBECONFIG") {
            discovery.kubeconfig = Some(PathBuf::from(text));
            self.sources.set("discovery.kubeconfig", source);
        }
        let zone = given.args.zone.as_deref();
        if let Some((source, text)) = given.one(zone, "--zone", "KAGENT_PROXY_ZONE") {
            discovery.zone = Some(text.to_owned());
            self.sources.set("discovery.zone", source);
        }
        if let Some((source, text)) = given.one(None, "", "KAGENT_PROXY_POD_IPS") {
            match pod_ips(text) {
                Ok(addresses) => {
                    discovery.pod_ips = addresses;
                    self.sources.set("discovery.podIps", source);
                }
                Err(reason) => self.faults.add(&source, "discovery.podIps", reason),
            }
        }
    }

    /// Replaces the files.
    fn session_keys(&mut self, given: Option<(Source, Vec<PathBuf>)>) {
        if let Some((source, files)) = given {
            self.config.sessions.key_files = files;
            self.sources.forget("sessions.keyFiles");
            self.sources.set("sessions.keyFiles", source);
        }
    }

    fn log(&mut self, format: Option<Text<'_>>, level: Option<Text<'_>>) {
        if let Some((source, text)) = format {
            match parse_log_format(text) {
                Ok(format) => {
                    self.config.log.format = format;
                    self.sources.set("log.format", source);
                }
                Err(reason) => self.faults.add(&source, "log.format", reason),
            }
        }
        if let Some((source, text)) = level {
            match parse_log_level(text) {
                Ok(level) => {
                    self.config.log.level = level;
                    self.sources.set("log.level", source);
                }
                Err(reason) => self.faults.add(&source, "log.level", reason),
            }
        }
    }

    fn workers(&mut self, given: Option<Text<'_>>) {
        let Some((source, text)) = given else { return };
        match parse_workers(text) {
            Ok(workers) => {
                self.config.workers = Some(workers);
                self.sources.set("workers", source);
            }
            Err(reason) => self.faults.add(&source, "workers", reason),
        }
    }
}

#[cfg(test)]
mod tests;
