//! `kagent-proxy doctor`: looks at a cluster and says what would go wrong, each with a remedy.
//!
//! `gather.rs` and `deployed.rs` read, by `ask.rs`; the rest judges what was read and does no I/O. Whether a Service is
//! routable is discovery's own decision, never one of its own. Changes nothing in the cluster.

mod agents;
mod ask;
mod cards;
mod deployed;
mod entry;
mod gather;
mod hosts;
mod rights;
mod servers;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{ConfigArgs, DoctorArgs, Output};
use crate::config::{self, Cards, Config, ServiceName};
use crate::discovery::object::{KagentApi, ObjectKind};
use crate::discovery::watch;
use crate::route::ObjectId;
use deployed::Deployed;
use gather::{ClusterSeen, Configured, Proxy};
use rights::Account;

/// Nothing is wrong; warnings and notes do not count.
pub const HEALTHY: u8 = 0;
/// At least one finding is an error.
pub const FAULTY: u8 = 1;
/// The cluster could not be looked at.
pub const NOT_LOOKED: u8 = 2;

/// For everything together. Each request has a shorter deadline of its own.
const PATIENCE: Duration = Duration::from_mins(2);

/// How bad a finding is. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Calls fail or go around the proxy.
    Error,
    /// Calls may fail, or something could not be checked.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// The object it is about.
    pub subject: String,
    /// What is wrong.
    pub what: String,
    /// What to do; empty if nothing has to be done.
    pub remedy: String,
}

/// Everything that was found, the worst first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    findings: Vec<Finding>,
    looked_at: String,
}

/// Looks at the cluster. Returns what to print and the exit code: [`HEALTHY`] or [`FAULTY`].
///
/// # Errors
/// The cluster could not be looked at, which is [`NOT_LOOKED`]; says why.
pub async fn doctor(
    args: &DoctorArgs,
    env: &BTreeMap<String, String>,
) -> Result<(String, u8), String> {
    let looking = Box::pin(look(args, env));
    let seen = tokio::time::timeout(PATIENCE, looking)
        .await
        .map_err(|_| format!("the cluster was not read within {PATIENCE:?}"))??;
    let report = judge(&seen);
    let text = match args.output {
        Output::Text => report.to_text(),
        Output::Json => format!("{:#}", report.to_json()),
    };
    Ok((text, report.code()))
}

/// Reads the cluster as the proxy does, so by its configuration: the file that is named, in the proxy's pod by
/// its variables, else what its Deployment says.
async fn look(args: &DoctorArgs, env: &BTreeMap<String, String>) -> Result<ClusterSeen, String> {
    let flags = ConfigArgs {
        config: args.config.clone(),
        kubeconfig: args.kubeconfig.clone(),
        discovery: true,
        ..ConfigArgs::default()
    };
    let here = config::load(&flags, env).map_err(|faults| faults.to_string())?;
    let kubeconfig = here.config.discovery.kubeconfig.clone();
    let client = watch::connect(kubeconfig.as_deref(), args.context.as_deref()).await?;
    // Whether anybody is there, before anything else.
    ask::get(&client, "/version").await?;
    let in_pod = env.contains_key("KUBERNETES_SERVICE_HOST")
        && kubeconfig.is_none()
        && args.context.is_none();
    let kagent = &here.config.discovery.controller.namespace;
    let home = if in_pod { client.default_namespace() } else { kagent };
    let home = args.namespace.as_deref().filter(|_| !in_pod).unwrap_or(home);
    let mut proxy = Proxy::new(service(&args.proxy_service, home));
    let mut config = if here.file.is_some() {
        proxy.configured = Configured::Known;
        here.config
    } else {
        let found = Box::pin(deployed::read(&client, &proxy.service)).await?;
        installed(found, &mut proxy).unwrap_or(here.config)
    };
    // The way of this program to the cluster, not that of the pod.
    config.discovery.kubeconfig = kubeconfig;
    let controller = &mut config.discovery.controller;
    if let Some(namespace) = &args.namespace {
        controller.namespace.clone_from(namespace);
    }
    if let Some(name) = &args.controller {
        let id = service(name, &controller.namespace);
        *controller =
            ServiceName { name: id.name.to_string(), namespace: id.namespace.to_string() };
    }
    proxy.account = account(args, &proxy, in_pod)?;
    Box::pin(gather::gather(&client, &config, proxy)).await
}

/// The configuration that the Deployment says, if it can be known.
fn installed(found: Result<Deployed, String>, proxy: &mut Proxy) -> Option<Config> {
    let deployed = match found {
        Ok(deployed) => deployed,
        Err(why) => {
            proxy.configured = Configured::Unknown(why);
            return None;
        }
    };
    proxy.account = Account::Of(proxy.service.namespace.to_string(), deployed.account);
    match config::load_text(&deployed.args, &deployed.env, deployed.text.as_deref()) {
        Ok(loaded) => {
            proxy.configured = Configured::Known;
            Some(loaded.config)
        }
        Err(faults) => {
            proxy.configured = Configured::Faulty(deployed.name, faults.to_string());
            None
        }
    }
}

/// Whose rights are looked at.
fn account(args: &DoctorArgs, proxy: &Proxy, in_pod: bool) -> Result<Account, String> {
    match args.service_account.as_deref() {
        Some("self") => Ok(Account::Own),
        Some(text) => match text.split_once('/') {
            Some((namespace, name)) => Ok(Account::Of(namespace.to_owned(), name.to_owned())),
            None => Err(format!("{text:?} is not a ServiceAccount; write NAMESPACE/NAME, or self")),
        },
        None if in_pod => Ok(Account::Own),
        None => Ok(proxy.account.clone()),
    }
}

/// `name` or `name.namespace`.
fn service(text: &str, namespace: &str) -> ObjectId {
    let (name, namespace) = text.split_once('.').unwrap_or((text, namespace));
    ObjectId::new(namespace, name)
}

fn judge(seen: &ClusterSeen) -> Report {
    let mut findings = entry::judge(seen);
    findings.extend(rights::judge(&seen.account, &seen.rights));
    findings.extend(hosts::judge(seen));
    findings.extend(agents::judge(seen));
    findings.extend(cards::judge(seen));
    findings.extend(entry::keys(seen));
    findings.extend(entry::configuration(seen));
    findings.extend(seen.unread.iter().map(|(what, why)| {
        Finding::warning(
            what,
            format!("could not be read, so what depends on it was not checked: {why}"),
            "run doctor as a user who may get and list it".to_owned(),
        )
    }));
    findings.extend(seen.passing.iter().map(|route| {
        Finding::warning(
            route,
            "cards: pass leaves the backend's own URLs in agent cards; agents of the Go runtime call those, around the proxy"
                .to_owned(),
            "remove cards: pass from the proxy's configuration".to_owned(),
        )
    }));
    findings.sort();
    findings.dedup();
    let count = |kind| seen.index.count(kind);
    let both =
        |kind: fn(KagentApi) -> ObjectKind| count(kind(KagentApi::V0)) + count(kind(KagentApi::V1));
    let looked_at = format!(
        "{} Services, {} Agents, {} RemoteMCPServers, {} MCPServers",
        count(ObjectKind::Service),
        both(ObjectKind::Agent),
        both(ObjectKind::RemoteMcpServer),
        count(ObjectKind::McpServer)
    );
    Report { findings, looked_at }
}

/// Where the configuration passes agent cards unchanged.
fn passing(config: &Config) -> Vec<String> {
    let routes = config.routes.iter().filter(|route| route.to.cards == Cards::Pass);
    let mut found: Vec<String> = routes.map(|r| format!("route {}{}", r.host, r.prefix)).collect();
    if config.discovery.inherited.cards == Cards::Pass {
        found.push("routeDefaults".to_owned());
    }
    found
}

// === impl Level ===

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

// === impl Finding ===

impl Finding {
    fn new(level: Level, subject: &impl ToString, what: String, remedy: String) -> Self {
        Self { level, subject: subject.to_string(), what, remedy }
    }

    fn error(subject: &impl ToString, what: String, remedy: String) -> Self {
        Self::new(Level::Error, subject, what, remedy)
    }

    fn warning(subject: &impl ToString, what: String, remedy: String) -> Self {
        Self::new(Level::Warning, subject, what, remedy)
    }

    fn note(subject: &impl ToString, what: String) -> Self {
        Self::new(Level::Note, subject, what, String::new())
    }
}

// === impl Report ===

impl Report {
    fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    fn code(&self) -> u8 {
        if self.count(Level::Error) == 0 { HEALTHY } else { FAULTY }
    }

    /// One line a finding, and a summary.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for Finding { level, subject, what, remedy } in &self.findings {
            let _infallible = write!(text, "{:<8} {subject}: {}", level.word(), one_line(what));
            if !remedy.is_empty() {
                let _infallible = write!(text, " -> {}", one_line(remedy));
            }
            text.push('\n');
        }
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warning));
        let _infallible = writeln!(
            text,
            "errors: {errors}, warnings: {warnings}, notes: {}; looked at {}",
            self.count(Level::Note),
            self.looked_at
        );
        text
    }

    fn to_json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "level": finding.level.word(),
                "subject": finding.subject,
                "what": finding.what,
                "remedy": finding.remedy,
            })
        });
        json!({
            "findings": findings.collect::<Vec<_>>(),
            "errors": self.count(Level::Error),
            "warnings": self.count(Level::Warning),
            "notes": self.count(Level::Note),
            "lookedAt": self.looked_at,
        })
    }
}

/// Names of objects and messages of servers must not make lines of their own.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
