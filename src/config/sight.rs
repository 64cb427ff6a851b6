//! The sections `sight` and `callers`: whether calls are read, and who calls from which address.
//!
//! Plain data and its reading; knows nothing of calls.

use ipnet::IpNet;
use serde_json::json;

use super::Config;
use super::file::{Map, Reader};
use super::scalar::{NETWORK, SWITCH, ScalarKind, number};
use super::target::parse_host;

/// Who calls what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SightConfig {
    /// Whether calls are read: for the metrics of calls, the access log, the graph and traces.
    pub calls: bool,
    /// Series of the metrics of calls; calls beyond are counted as `other`.
    pub max_series: usize,
}

/// An Agent that calls from known addresses, where no cluster says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerConfig {
    /// `namespace/name`.
    pub agent: (String, String),
    /// Where it calls from.
    pub addresses: Vec<IpNet>,
    /// What it says that it uses. Empty: it says nothing.
    pub uses: Vec<Use>,
}

/// One route that an Agent uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// The host of the route.
    pub host: String,
    /// Its tools; empty is all of them.
    pub tools: Vec<String>,
}

impl Reader<'_> {
    pub(super) fn sight(&mut self, map: &mut Map<'_>, config: &mut Config) {
        if let Some(mut section) = self.section(map, "sight") {
            self.set(&mut section, "calls", &mut config.sight.calls, SWITCH);
            let most = number::<1, 1_000_000, usize>();
            self.set(&mut section, "maxSeries", &mut config.sight.max_series, most);
            self.end(&section);
        }
        let items = self.items(map, "callers", &mut config.callers).unwrap_or_default();
        for (node, path, shown) in items {
            let mut item = self.map(node, &path);
            let (agent, mut addresses, mut uses) = match shown {
                Some(CallerConfig { agent, addresses, uses }) => (Some(agent), addresses, uses),
                None => Default::default(),
            };
            let agent = self.value(&mut item, "agent", agent, AGENT);
            let count = self.scalars(&mut item, "addresses", &mut addresses, NETWORK);
            self.scalars(&mut item, "uses", &mut uses, USE);
            self.end(&item);
            if count.unwrap_or_default() == 0 {
                self.fault(node.line(), &path, "has no addresses; write `addresses: [10.0.0.7]`");
            }
            match agent {
                Some(agent) => config.callers.push(CallerConfig { agent, addresses, uses }),
                None => self.fault(
                    node.line(),
                    &path,
                    "has no usable agent; write `agent: namespace/name`",
                ),
            }
        }
    }
}

const AGENT: ScalarKind<(String, String)> = ScalarKind::text_shown(
    |text| match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
        {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err(format!("{text:?} is no agent; write namespace/name")),
    },
    |_, (namespace, name)| json!(format!("{namespace}/{name}")),
);

const USE: ScalarKind<Use> = ScalarKind::text_shown(
    |text| {
        let (host, tools) = text.split_once('=').unwrap_or((text, ""));
        let tools: Vec<String> = tools
            .split(',')
            .map(|tool| tool.trim().to_owned())
            .filter(|tool| !tool.is_empty())
            .collect();
        let host = parse_host(host).map_err(|wrong| {
            format!("{wrong}; write the host of a route, and tools behind =: tools.team-a=add,sub")
        })?;
        Ok(Use { host, tools })
    },
    |_, Use { host, tools }| match tools.is_empty() {
        true => json!(host),
        false => json!(format!("{host}={}", tools.join(","))),
    },
);
