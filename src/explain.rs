//! How a request would be routed and why, as data; by the same table that routes.
//!
//! Dials nothing and resolves no name. `main.rs` prints what [`explain`] returns.

use serde_json::{Value, json};

use crate::build;
use crate::config::Config;
use crate::proxy::error::ProxyError;
use crate::route::{HostKey, RouteTable};
use crate::telemetry::{self, metrics::Metrics};

/// The decision for `x-kagent-host: host` and `path`.
#[must_use]
pub fn explain(config: &Config, host: &str, path: &str) -> Value {
    let table = match table(config) {
        Ok(table) => table,
        Err(error) => return json!({"host": host, "path": path, "error": error}),
    };
    let refused = |error: &ProxyError| {
        json!({
            "host": host,
            "path": path,
            "reason": error.reason().word(),
            "status": error.reason().status().as_u16(),
            "detail": error.to_string(),
            "candidates": error.candidates(),
            "action": error.reason().action(),
        })
    };
    let (key, port) = match HostKey::parse(host, &config.cluster_domain) {
        Ok(parsed) => parsed,
        Err(why) => return refused(&ProxyError::BadTarget(host.to_owned(), why)),
    };
    match table.resolve(&key, path) {
        Err(why) => refused(&ProxyError::no_route(&key, why)),
        Ok(route) => match port.filter(|port| !route.has_port(*port)) {
            Some(port) => refused(&ProxyError::WrongPort(port)),
            None => {
                let targets: Vec<String> =
                    route.cluster.targets().iter().map(ToString::to_string).collect();
                json!({
                    "host": host,
                    "normalised": key.as_str(),
                    "path": path,
                    "route": {"host": route.config.host, "prefix": route.config.prefix},
                    "source": "static",
                    "targets": targets,
                })
            }
        },
    }
}

fn table(config: &Config) -> Result<RouteTable, String> {
    let metrics = Metrics::new(telemetry::recorder().map_err(|error| error.to_string())?);
    let built = build::build(config, &metrics, None).map_err(|error| error.to_string())?;
    Ok(built.table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{RouteConfig, RouteTarget, Scheme, Target};

    fn config() -> Config {
        let target = Target { scheme: Scheme::Http, host: "10.0.0.1".to_owned(), port: 8080 };
        let to = RouteTarget::new(vec![target]);
        let route = RouteConfig { host: "helper.ns".to_owned(), prefix: "/".to_owned(), to };
        Config { routes: vec![route], ..Config::default() }
    }

    #[test]
    fn a_known_host_names_its_targets_and_an_unknown_one_its_neighbours() {
        let known = explain(&config(), "Helper.ns.svc.cluster.local", "/mcp");
        assert_eq!(known["targets"][0], "http://10.0.0.1:8080");
        let unknown = explain(&config(), "helper.other", "/mcp");
        assert_eq!(unknown["reason"], "unknown_target");
        assert_eq!(unknown["candidates"][0], "helper.ns");
        assert_eq!(explain(&config(), "helper.ns:22", "/")["reason"], "bad_target");
    }
}
