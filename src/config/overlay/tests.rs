//! Precedence, the environment a kubelet makes, and the faults of flags and variables.

use std::num::NonZeroUsize;

use super::super::Secret;
use super::*;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Every fault, each on its line.
fn faults(args: &ConfigArgs, env: &BTreeMap<String, String>) -> String {
    load(args, env).expect_err("it has faults").to_string()
}

fn routes(routes: &[&str]) -> ConfigArgs {
    ConfigArgs { route: routes.iter().map(|&r| r.to_owned()).collect(), ..ConfigArgs::default() }
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = load(&ConfigArgs::default(), &env(&[])).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.sources.of("listener.idle"), Source::Default);
}

#[test]
fn a_kubelets_variables_change_nothing() {
    let kubelet = env(&[
        ("KAGENT_PROXY_PORT", "tcp://10.96.0.7:8080"),
        ("KAGENT_PROXY_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("KAGENT_PROXY_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("KAGENT_PROXY_SERVICE_HOST", "10.96.0.7"),
        ("KAGENT_PROXY_SERVICE_PORT_HTTP", "8080"),
        ("PATH", "/bin"),
    ]);
    let loaded = load(&ConfigArgs::default(), &kubelet).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.ignored_env.len(), 5);
}

#[test]
fn routes_without_a_file_are_a_sidecar() {
    let loaded = load(&routes(&["a=b:1"]), &env(&[])).unwrap();
    assert_eq!(loaded.config.listeners, Config::sidecar().listeners);
    assert_eq!(loaded.config.admin, Config::sidecar().admin);
    let loaded =
        load(&ConfigArgs::default(), &env(&[("KAGENT_PROXY_DEFAULT_ROUTE", "b:1")])).unwrap();
    assert_eq!(loaded.config.listeners, Config::sidecar().listeners);
}

#[test]
fn flags_win_over_the_environment() {
    let args = ConfigArgs {
        listen: vec!["127.0.0.1:1".to_owned()],
        workers: Some("2".to_owned()),
        ..routes(&["A/docs=flag:1"])
    };
    let env = env(&[
        ("KAGENT_PROXY_LISTEN", "127.0.0.1:2 [::1]:3"),
        ("KAGENT_PROXY_WORKERS", "3"),
        ("KAGENT_PROXY_ADMIN", "127.0.0.1:4"),
        ("KAGENT_PROXY_ROUTES", " a/docs=env:1\n b=env:2 "),
    ]);
    let loaded = load(&args, &env).unwrap();
    let config = &loaded.config;
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.workers, NonZeroUsize::new(2));
    assert_eq!(config.admin.address, "127.0.0.1:4".parse().unwrap());
    let targets: Vec<_> = config.routes.iter().map(|r| r.to.targets[0].to_string()).collect();
    assert_eq!(targets, ["http://flag:1", "http://env:2"]);
    assert_eq!(loaded.sources.of("routes[0].targets"), Source::Flag("--route"));
    assert_eq!(loaded.sources.of("routes[1].targets"), Source::Env("KAGENT_PROXY_ROUTES"));
    assert_eq!(loaded.sources.of("admin.address"), Source::Env("KAGENT_PROXY_ADMIN"));
    assert_eq!(loaded.sources.of("workers"), Source::Flag("--workers"));
}

#[test]
fn all_faults_come_at_once_and_name_their_place() {
    let args =
        ConfigArgs { log_format: Some("xml".to_owned()), ..routes(&["a=b", "c=d:1", "c=e:1"]) };
    let report =
        faults(&args, &env(&[("KAGENT_PROXY_ADMIN", "9090"), ("KAGENT_PROXY_WORKERS", "0")]));
    let expected = [
        "KAGENT_PROXY_ADMIN: admin.address: \"9090\" is not an address; write IP:PORT, such as 127.0.0.1:8080 or [::]:8080",
        "--route: routes: target \"b\" has no port; write b:8080 or http://b",
        "--route: routes: c is given twice; write one route with all its targets, separated by commas",
        "--log-format: log.format: \"xml\" is not a log format; write json or text",
        "KAGENT_PROXY_WORKERS: workers: \"0\" is not a number of threads; write 1 to 1024",
    ];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected);
}

/// A file of its own for one test, removed at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("kagent-proxy-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn args(&self) -> ConfigArgs {
        ConfigArgs { config: Some(self.0.clone()), ..ConfigArgs::default() }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_file_is_laid_over_the_defaults_and_flags_over_the_file() {
    let file = File::new(
        "over",
        "listener: {idle: 1m30s, maxHeadBytes: 32KiB}\nrouteDefaults:\n  timeouts: {stream: {idle: 5m}}\nroutes:\n- match: Helper.Team-A/docs\n  targets: [\"localhost:8081\"]\n  upgrades: []\n- match: b\n  targets: [https://b]\n",
    );
    let args = ConfigArgs { route: vec!["b=c:1".to_owned()], ..file.args() };
    let loaded = load(&args, &env(&[])).unwrap();
    let config = loaded.config;
    assert_eq!(config.listener.idle.as_secs(), 90);
    assert_eq!(config.listener.max_head_bytes, 32 * 1024);
    assert_eq!(config.listeners, Config::default().listeners);
    assert_eq!(
        (config.routes[0].host.as_str(), config.routes[0].prefix.as_str()),
        ("helper.team-a", "/docs")
    );
    assert!(!config.routes[0].to.websocket);
    assert_eq!(config.routes[0].to.timeouts.stream.idle.unwrap().as_secs(), 300);
    assert_eq!(config.routes[1].to.targets[0].to_string(), "http://c:1");
    assert_eq!(loaded.sources.of("listener.idle"), Source::File(file.0.clone(), 1));
    assert_eq!(loaded.sources.of("routes[1].targets"), Source::Flag("--route"));
}

fn says(cases: &[(&str, &str)]) {
    for (yaml, expected) in cases {
        let file = File::new("faults", yaml);
        let report = faults(&file.args(), &env(&[]));
        assert_eq!(report, format!("{}:{expected}", file.0.display()), "{yaml}");
    }
}

#[test]
fn faults_of_a_file_carry_line_and_proposal() {
    says(&[
        ("listner: {}", "1: listner: is not a known key; did you mean listener?"),
        (
            "\nlistener:\n  idle: 30",
            "3: listener.idle: \"30\" is not a duration; write one such as 30s, 1m30s, 500ms or 0",
        ),
        ("listener: 3", "1: listener: is not a map; write `key: value` lines below it"),
        ("routes: {}", "1: routes: is not a list; write one `- item` line for each"),
        (
            "routes:\n- match: a",
            "2: routes[0]: has no targets; write `targets: [http://localhost:8080]`",
        ),
        (
            "routes:\n- match: a\n  targets: [\"b:1\"]\n- match: A.\n  targets: [\"c:1\"]",
            "4: routes[1]: a is given twice; write one route with all its targets, separated by commas",
        ),
        (
            "routes:\n- match: a.b\n  targets: [\"b:1\"]\n- match: a.b.svc\n  targets: [\"c:1\"]",
            "4: routes[1].match: is a.b in another spelling: a.b.svc is given twice; write one route with all its targets, separated by commas",
        ),
        (
            "routes:\n- match: a\n  targets: [\"b:1\"]\n  tls: {keyFile: k}",
            "4: routes[0].tls.certFile: certificate and key go together; write `certFile` and `keyFile`",
        ),
        (
            "routes:\n- match: a\n  targets: [\"b:1\"]\n  upgrades: [h2c]",
            "4: routes[0].upgrades[0]: \"h2c\" is not supported; write websocket or an empty list",
        ),
        (
            "defaultRoutes:\n- targets: [\"b:1\"]\n  listener: x",
            "3: defaultRoutes[0].listener: there is no listener \"x\"; write the name of one in listeners",
        ),
        (
            "defaultRoutes:\n- targets: [\"b:1\"]\n- host: x\n  targets: [\"c:1\"]",
            "4: defaultRoutes[1]: is never taken: defaultRoutes[0] comes first and fits all its requests; write this one before it",
        ),
    ]);
}

#[test]
fn addresses_that_exclude_each_other_are_faults() {
    says(&[
        (
            "admin: {address: \"[::1]:1\"}\nlisteners:\n- address: \"[::1]:1\"",
            "3: listeners[0].address: [::1]:1 is taken by [::1]:1 of admin; write another port",
        ),
        (
            "listeners: [{name: a, address: \"[::]:1\"}, {name: b, address: \"0.0.0.0:1\"}]",
            "1: listeners[1].address: 0.0.0.0:1 is taken by [::]:1 of a; write another port",
        ),
        (
            "listeners: [{name: a, address: \"127.0.0.1:1\"}, {name: b, address: \"[::]:1\"}]",
            "1: listeners[1].address: [::]:1 is taken by 127.0.0.1:1 of a; write another port",
        ),
        (
            "listeners: [{name: a, address: \"0.0.0.0:1\"}, {name: b, address: \"10.0.0.1:1\"}]",
            "1: listeners[1].address: 10.0.0.1:1 is taken by 0.0.0.0:1 of a; write another port",
        ),
        (
            "admin: {address: \"[::]:9091\"}",
            "1: admin.local: 127.0.0.1:9091 is taken by [::]:9091 of admin; write another port",
        ),
        (
            "admin: {local: \"0.0.0.0:9091\"}",
            "1: admin.local: \"0.0.0.0:9091\" is not on loopback; write one such as 127.0.0.1:9091, or admin.expose: all to show everything elsewhere",
        ),
    ]);
}

#[test]
fn values_that_are_none_carry_line_and_proposal() {
    says(&[
        ("\nlisteners: []", "2: listeners: has no usable listener; write one or leave the key out"),
        (
            "publicUrl: http://a/b",
            "1: publicUrl: \"http://a/b\" is not the URL of a proxy; write http:// or https:// and a host, without path or query",
        ),
        (
            "trustedProxies: [10/8]",
            "1: trustedProxies[0]: \"10/8\" is not a network; write one such as 10.0.0.0/8 or 10.0.0.1",
        ),
    ]);
}

/// The least and the greatest value of every number, size and duration.
fn bounds() -> Vec<(String, &'static str, &'static str)> {
    let year = "8760h";
    let mut bounds: Vec<(String, _, _)> = [
        ("listener.detect", "100ms", "1h"),
        ("listener.handshake", "100ms", "1h"),
        ("listener.headRead", "100ms", "1h"),
        ("listener.idle", "1s", year),
        ("listener.maxHeadBytes", "4KiB", "1MiB"),
        ("listener.maxHeadFields", "16", "1000"),
        ("listener.maxConnections", "1", "1000000"),
        ("listener.maxH2Streams", "1", "100000"),
        ("listener.maxH2Resets", "1", "100000"),
        ("routeDefaults.timeouts.connect", "10ms", "1h"),
        ("routeDefaults.keepAlive", "1s", year),
        ("routeDefaults.hold.card", "0", "1h"),
        ("routeDefaults.hold.request", "0", "1h"),
        ("routeDefaults.hold.session", "0", "1h"),
        ("upstream.idle", "0", "24h"),
        ("upstream.idleMax", "0", "24h"),
        ("upstream.resolveEvery", "1s", "24h"),
        ("upstream.retryPercent", "0", "100"),
        ("upstream.retryPerSecond", "0", "100000"),
        ("upstream.maxHeadBytes", "8KiB", "1MiB"),
        ("upstream.maxHeadFields", "16", "1000"),
        ("hold.max", "0", "1000000"),
        ("hold.maxPerSource", "0", "1000000"),
        ("sessions.maxAge", "1h", year),
        ("sight.maxSeries", "1", "1000000"),
        ("drain.lag", "0", "1h"),
        ("drain.deadline", "0", "24h"),
        ("workers", "1", "1024"),
        ("reloadEvery", "10ms", "24h"),
    ]
    .into_iter()
    .map(|(key, least, greatest)| (key.to_owned(), least, greatest))
    .collect();
    for class in ["unary", "stream", "upgrade"] {
        let limit = |limit| format!("routeDefaults.timeouts.{class}.{limit}");
        bounds.extend(["head", "idle", "total"].map(|name| (limit(name), "100ms", year)));
    }
    bounds
}

/// A value that nobody can mean is a fault; the least and the greatest that somebody can are none.
#[test]
fn numbers_sizes_and_durations_have_bounds() {
    let bounds = bounds();
    let mut measured = Vec::new();
    leaves(&crate::config::schema(), "", &mut measured, &|leaf| {
        leaf["type"].as_array().is_some_and(|types| types.contains(&"integer".into()))
            || leaf.get("anyOf").is_some()
    });
    for key in &measured {
        assert!(bounds.iter().any(|(bound, ..)| bound == key), "{key} has no bounds here");
    }
    assert_eq!(measured.len(), bounds.len(), "each once");
    for (key, least, greatest) in bounds {
        let written = |value: &str| {
            let depth = key.matches('.').count();
            let file =
                File::new("bounds", &(key.replace('.', ": {") + ": " + value + &"}".repeat(depth)));
            load(&file.args(), &env(&[])).err().map(|faults| faults.to_string())
        };
        for value in [least, greatest] {
            assert_eq!(written(value), None, "{key}: {value}");
        }
        // One step beyond, in the unit of the bound.
        let (digits, unit) = greatest
            .split_at(greatest.find(|c: char| !c.is_ascii_digit()).unwrap_or(greatest.len()));
        let beyond = format!("{}{unit}", digits.parse::<u64>().unwrap() + 1);
        let below = match least {
            "0" => "-1",
            "1s" => "999ms",
            "1h" => "3599s",
            "4KiB" => "4095",
            "8KiB" => "8191",
            "16" => "15",
            "1" => "0",
            "10ms" => "9ms",
            _ => "99ms",
        };
        for value in [below, &beyond] {
            assert!(written(value).is_some_and(|said| said.contains(&key)), "{key}: {value}");
        }
    }
}

#[test]
fn the_local_admin_address_has_a_flag_and_a_variable() {
    let args = ConfigArgs { admin_local: Some("[::1]:1".to_owned()), ..ConfigArgs::default() };
    let both = env(&[("KAGENT_PROXY_ADMIN_LOCAL", "127.0.0.1:2")]);
    let loaded = load(&args, &both).unwrap();
    assert_eq!(loaded.config.admin.local, "[::1]:1".parse().unwrap());
    assert_eq!(loaded.sources.of("admin.local"), Source::Flag("--admin-local"));
    let loaded = load(&ConfigArgs::default(), &both).unwrap();
    assert_eq!(loaded.config.admin.local, "127.0.0.1:2".parse().unwrap());
    let report =
        faults(&ConfigArgs::default(), &env(&[("KAGENT_PROXY_ADMIN_LOCAL", "10.0.0.1:2")]));
    assert!(report.starts_with("KAGENT_PROXY_ADMIN_LOCAL: admin.local: "), "{report}");
}

#[test]
fn a_trusted_network_is_the_same_in_both_families() {
    let file =
        File::new("mapped", "trustedProxies: [\"::ffff:10.0.0.0/104\", \"::ffff:10.1.2.3\"]");
    let loaded = load(&file.args(), &env(&[])).unwrap();
    let shown: Vec<_> = loaded.config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.0/8", "10.1.2.3/32"]);
}

#[test]
fn the_file_of_a_secret_wins_over_the_secret() {
    let file = File::new(
        "secret",
        "routes:\n- match: a\n  targets: [https://a]\n  tls: {ca: inline, caFile: ca.crt}\n",
    );
    let config = load(&file.args(), &env(&[])).unwrap().config;
    assert_eq!(config.routes[0].to.tls.ca, Some(Secret::File("ca.crt".into())));
}

#[test]
fn a_missing_file_is_a_fault() {
    let args = ConfigArgs { config: Some("/nonexistent/k.yaml".into()), ..ConfigArgs::default() };
    let report = faults(&args, &env(&[]));
    assert!(report.starts_with("/nonexistent/k.yaml: cannot be read: "), "{report}");
}

fn shipped(name: &str) -> Loaded {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    let args = ConfigArgs { config: Some(path), ..ConfigArgs::default() };
    load(&args, &env(&[])).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn default_yaml_is_the_default() {
    let loaded = shipped("default.yaml");
    assert_eq!(loaded.config, Config::default());
    // Each key that a file may have stands in this one, so that no default goes unexplained.
    let mut keys = Vec::new();
    leaves(&crate::config::schema(), "", &mut keys, &|_| true);
    assert!(keys.len() > 60, "only {keys:?}: the search is broken");
    // Without a default of their own, so they stand in a comment.
    let optional = [
        "routeDefaults.host",
        "tls.caFile",
        "tls.certFile",
        "tls.keyFile",
        "tls.serverName",
        "discovery.trustedNamespaces",
        "traces.headersFile",
    ];
    let text = std::fs::read_to_string(loaded.file.as_ref().unwrap()).unwrap();
    let comments: Vec<_> = text.lines().filter_map(|line| line.split_once('#')).collect();
    for key in &keys {
        let name = key.rsplit('.').next().unwrap();
        if optional.iter().any(|end| key.ends_with(end)) {
            assert!(comments.iter().any(|(_, comment)| comment.contains(name)), "{key}");
        } else {
            let source = loaded.sources.get(key);
            assert!(matches!(source, Some(Source::File(_, line)) if *line > 0), "{key}");
        }
    }
}

/// The paths of the keys under a schema, down to lists, whose items have no default. Secrets given in
/// place are left to the schema: a file shows them only by the file they stand in.
fn leaves(
    schema: &serde_json::Value,
    path: &str,
    into: &mut Vec<String>,
    wanted: &dyn Fn(&serde_json::Value) -> bool,
) {
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    for (name, below) in properties.into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if below.get("properties").is_some() {
            leaves(below, &path, into, wanted);
        } else if !["ca", "cert", "key"].contains(&&**name) && wanted(below) {
            into.push(path);
        }
    }
}

#[test]
fn route_defaults_of_default_yaml_are_the_defaults() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/default.yaml"))
        .unwrap();
    let text = text.replace("routes: [] #", "routes: [{match: a, targets: [\"b:1\"]}] #");
    let file = File::new("inherit", &text);
    let config = load(&file.args(), &env(&[])).unwrap().config;
    assert_eq!(config.routes[0].to, RouteTarget::new(parse_targets("b:1").unwrap()));
}

#[test]
fn the_shipped_examples_are_valid() {
    assert_eq!(shipped("local.yaml").config.routes.len(), 2);
    assert_eq!(shipped("kubernetes.yaml").config.listeners[0].address.port(), 8080);
}

#[test]
fn the_default_route_of_a_flag_replaces_only_the_unconditional_one() {
    let file = File::new(
        "default-route",
        "defaultRoutes:\n- host: special\n  targets: [\"s:1\"]\n- targets: [\"old:1\"]\n",
    );
    let args = ConfigArgs { default_route: Some("new:1".to_owned()), ..file.args() };
    let loaded = load(&args, &env(&[])).unwrap();
    let shown: Vec<_> =
        loaded.config.default_routes.iter().map(|r| r.to.targets[0].to_string()).collect();
    assert_eq!(shown, ["http://s:1", "http://new:1"]);
    assert_eq!(loaded.sources.of("defaultRoutes[0].host"), Source::File(file.0.clone(), 2));
    assert_eq!(loaded.sources.of("defaultRoutes[1].targets"), Source::Flag("--default-route"));
}
