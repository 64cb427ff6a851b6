//! `kagent-proxy check`: every fault of a configuration, with its place and what to write.
//!
//! Reads the files that the configuration names, as a start would; opens no socket and resolves no
//! name; prints nothing.

use std::collections::BTreeMap;

use super::ConfigArgs;
use crate::config::{self, ConfigError, ConfigFaults, Loaded, Source, Sources};
use crate::session::Sessions;
use crate::tls::{self, TlsError};

/// The report, and the exit code: 0, or 64 (`EX_USAGE` of sysexits.h).
#[must_use]
pub fn check(args: &ConfigArgs, env: &BTreeMap<String, String>) -> (String, u8) {
    let loaded = match config::load(args, env) {
        Ok(loaded) => loaded,
        Err(faults) => return (faults.to_string(), 64),
    };
    let faults = file_faults(&loaded);
    if !faults.0.is_empty() {
        return (faults.to_string(), 64);
    }
    let routes = loaded.config.routes.len();
    let file = loaded.file.map_or_else(|| "no file".to_owned(), |path| path.display().to_string());
    let mut report = format!("configuration is valid: {file}, static routes: {routes}");
    report.extend(loaded.warnings.iter().map(|warning| format!("\nwarning: {warning}")));
    (report, 0)
}

/// What is wrong with the certificates and keys that the configuration names.
fn file_faults(loaded: &Loaded) -> ConfigFaults {
    tls::install_provider();
    let Loaded { config, sources, .. } = loaded;
    let mut faults = ConfigFaults::default();
    for (at, listener) in config.listeners.iter().enumerate() {
        let wrong = listener.tls.as_ref().map(tls::server_faults).unwrap_or_default();
        add(&mut faults, sources, &[&format!("listeners[{at}]")], wrong);
    }
    for (at, route) in config.routes.iter().enumerate() {
        let own = format!("routes[{at}]");
        add(&mut faults, sources, &[&own, "routeDefaults"], tls::client_faults(&route.to.tls));
    }
    for (at, route) in config.default_routes.iter().enumerate() {
        let own = format!("defaultRoutes[{at}]");
        add(&mut faults, sources, &[&own, "routeDefaults"], tls::client_faults(&route.to.tls));
    }
    if config.traces.endpoint.is_some() {
        add(&mut faults, sources, &["traces"], tls::client_faults(&config.traces.tls));
    }
    if let Err(fault) = Sessions::check(&config.sessions) {
        let path = "sessions.keyFiles".to_owned();
        let reason = fault.reason();
        faults.0.push(ConfigError { source_of: sources.of(&path), path, reason });
    }
    faults
}

/// Adds faults under the first section that gave the key; one inherited by many routes counts once.
fn add(faults: &mut ConfigFaults, sources: &Sources, sections: &[&str], wrong: Vec<TlsError>) {
    for error in wrong {
        let paths = sections.iter().map(|section| format!("{section}.tls.{}", error.key()));
        let given = paths.clone().find(|path| sources.get(path).is_some());
        let path = given.or_else(|| paths.clone().next()).unwrap_or_default();
        let source_of: Source = sources.of(&path);
        let fault = ConfigError { source_of, path, reason: error.to_string() };
        if !faults.0.contains(&fault) {
            faults.0.push(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unusable_file_is_a_fault_with_its_line_and_an_inherited_one_counts_once() {
        let folder =
            std::env::temp_dir().join(format!("kagent-proxy-check-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("proxy.yaml");
        std::fs::write(folder.join("text"), "no PEM").unwrap();
        let text = format!("{}/text", folder.display());
        let yaml = format!(
            "listeners:\n- address: \"[::1]:1\"\n  tls:\n    certFile: /nonexistent/c\n    keyFile: {text}\n\
             routeDefaults:\n  tls: {{caFile: /nonexistent/ca}}\n\
             routes:\n- {{match: a, targets: [https://a]}}\n- {{match: b, targets: [https://b]}}\n"
        );
        std::fs::write(&path, yaml).unwrap();
        let args = ConfigArgs { config: Some(path.clone()), ..ConfigArgs::default() };
        let (report, code) = check(&args, &BTreeMap::new());
        std::fs::remove_dir_all(&folder).unwrap();
        let path = path.display();
        let expected = [
            format!("{path}:4: listeners[0].tls.certFile: certFile /nonexistent/c: cannot be read"),
            format!("{path}:5: listeners[0].tls.keyFile: keyFile {text}: has no private key"),
            format!("{path}:7: routeDefaults.tls.caFile: caFile /nonexistent/ca: cannot be read"),
        ];
        assert_eq!(report.lines().count(), expected.len(), "{report}");
        for (line, start) in report.lines().zip(expected) {
            assert!(line.starts_with(&start), "{line} should start with {start}");
        }
        assert_eq!(code, 64);
    }

    #[test]
    fn a_variable_that_is_not_used_is_told() {
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned();
        let env = BTreeMap::from([(name, "collector:4317".to_owned())]);
        let (report, code) = check(&ConfigArgs::default(), &env);
        let lines: Vec<_> = report.lines().collect();
        assert!(lines[0].starts_with("configuration is valid") && lines.len() == 2, "{report}");
        assert!(lines[1].starts_with("warning: OTEL_EXPORTER_OTLP_ENDPOINT \"coll"), "{report}");
        assert_eq!(code, 0);
    }

    #[test]
    fn a_configuration_without_files_is_valid() {
        let (report, code) = check(&ConfigArgs::default(), &BTreeMap::new());
        assert_eq!(
            (report.as_str(), code),
            ("configuration is valid: no file, static routes: 0", 0)
        );
    }
}
