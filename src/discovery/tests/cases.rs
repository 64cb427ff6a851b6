//! Which target a host and a path mean, case by case.

use super::*;

#[test]
fn objects_of_two_namespaces_that_say_the_same_are_not_ambiguous() {
    let config = DiscoveryConfig {
        trusted_namespaces: Some(vec!["*".to_owned()]),
        ..DiscoveryConfig::default()
    };
    let mut world = World::new(config);
    world.apply(&[
        service("tools", "t", &["x:1", "y:8443"]),
        remote("a", "one", "https://t.tools:8443/mcp"),
        remote("b", "two", "https://t.tools:8443/mcp"),
    ]);
    assert_eq!(world.ask("t.tools", "/mcp", None), "https://t.tools:8443");
}

#[test]
fn a_headless_service_without_ports_is_dialled_at_the_port_that_its_object_names() {
    let mut headless = service("a", "t", &[]);
    headless.1["spec"] = json!({ "clusterIP": "None", "ports": [] });
    let mut world = World::of(&[headless, remote("a", "r", "http://t.a:7000/mcp")]);
    assert_eq!(world.ask("t.a", "/mcp", None), "http://t.a:7000");
    assert!(world.ask("t.a", "/other", None).starts_with("ambiguous: "));
    world.apply(&[service("a", "none", &[])]);
    assert!(world.ask("none.a", "/", None).contains("has no TCP port"));
}

#[test]
fn an_agents_service_is_reached_on_its_http_port_under_every_spelling() {
    let world = World::of(&[
        agent("team-a", "helper", &[]),
        service_with("team-a", "helper", &["metrics:9090", "http:8080"], owner("Agent", "helper")),
    ]);
    for host in [
        "helper.team-a",
        "Helper.Team-A.",
        "helper.team-a.svc",
        "helper.team-a.svc.cluster.local",
        "helper.team-a:8080",
    ] {
        assert_eq!(world.ask(host, "/", None), "http://helper.team-a:8080", "{host}");
    }
    assert_eq!(world.ask("helper.team-a:9090", "/", None), "http://helper.team-a:9090");
    assert_eq!(world.ask("helper.team-a:22", "/", None), "no port 22 of [8080, 9090]");
    assert_eq!(world.ask("helper.team-b", "/", None), "unknown");
}

#[test]
fn an_agents_port_is_never_a_guess() {
    let byo = World::of(&[agent("a", "byo", &[]), service("a", "byo", &["web:80"])]);
    assert_eq!(byo.ask("byo.a", "/", None), "http://byo.a", "its only port, not 8080");
    let several = World::of(&[
        agent("a", "byo", &[]),
        service_with("a", "byo", &["web:80", "admin:81"], owner("Agent", "byo")),
    ]);
    assert_eq!(several.ask("byo.a", "/", None), "ambiguous: 80, 81");
    let (hinted, _) = several.chain("byo.a", "/", None, Some("byo.a:81"));
    assert_eq!(hinted, "http://byo.a:81", "the Host that Python sends is a hint");
    let (foreign, _) = several.chain("byo.a", "/", None, Some("other.a:81"));
    assert_eq!(foreign, "ambiguous: 80, 81");
}

#[test]
fn an_agent_that_also_serves_mcp_is_told_apart_by_path() {
    let world = World::of(&[
        agent("a", "helper", &[]),
        service_with("a", "helper", &["http:8080", "mcp:9000"], owner("Agent", "helper")),
        remote("a", "tools", "http://helper.a:9000/mcp"),
        remote("a", "root", "http://helper.a:9000/"),
    ]);
    assert_eq!(world.ask("helper.a", "/mcp", None), "http://helper.a:9000");
    assert_eq!(world.ask("helper.a", "/mcp/x", None), "http://helper.a:9000");
    assert_eq!(world.ask("helper.a", "/", None), "http://helper.a:8080");
    assert_eq!(world.ask("helper.a", "/.well-known/agent-card.json", None), "http://helper.a:8080");
}

#[test]
fn the_owner_decides_where_an_agent_and_a_tool_server_share_a_name() {
    let both = [agent("a", "x", &[]), mcp_server("a", "x", 3000)];
    let ports = ["http:8080", "mcp:3000"];
    let mut world = World::of(&both);
    world.apply(&[service_with("a", "x", &ports, owner("Agent", "x"))]);
    assert_eq!(world.ask("x.a", "/mcp", None), "http://x.a:8080");
    world.apply(&[service_with("a", "x", &ports, owner("MCPServer", "x"))]);
    assert_eq!(world.ask("x.a", "/mcp", None), "http://x.a:3000");
}

#[test]
fn an_mcp_servers_declared_port_counts_as_long_as_the_service_has_it() {
    let mut world = World::of(&[
        mcp_server("a", "kmcp", 3000),
        service_with("a", "kmcp", &["http:3000", "other:1"], owner("MCPServer", "kmcp")),
    ]);
    assert_eq!(world.ask("kmcp.a", "/mcp", None), "http://kmcp.a:3000");
    // A rollout: the object says another port already.
    world.apply(&[service_with("a", "kmcp", &["http:3001"], owner("MCPServer", "kmcp"))]);
    let (target, chain) = world.chain("kmcp.a", "/mcp", None, None);
    assert_eq!(target, "http://kmcp.a:3001");
    let dropped = chain.iter().find(|n| n.candidate.contains("3000")).unwrap();
    assert!(dropped.verdict.contains("no such port"), "{dropped:?}");
}

#[test]
fn a_services_own_words_in_their_order() {
    let annotated = json!({ "annotations": { "kagent.dev/mcp-service-port": "2" } });
    let marked = json!({ "labels": { "kagent.dev/mcp-service": "true" } });
    for (ports, more, target) in [
        (&["a:1", "b:2"][..], annotated.clone(), "http://s.a:2"),
        (&["a:1"][..], annotated, "http://s.a:1"),
        (&["a:1"][..], marked.clone(), "http://s.a:1"),
        (&["a:1", "b:2:mcp"][..], json!({}), "http://s.a:2"),
        (&["a:1", "b:2:MCP", "c:3:mcp"][..], json!({}), "http://s.a:2"),
        (&["a:1", "b:2:kgateway.dev/mcp"][..], json!({}), "http://s.a:2"),
        (&["a:1:mcp", "b:2:kgateway.dev/a2a"][..], json!({}), "ambiguous: 1, 2"),
        (&["a:1", "b:2"][..], marked.clone(), "ambiguous: 1, 2"),
        (&["a:1:kubernetes.io/h2c"][..], marked.clone(), "h2c://s.a:1"),
        (&["a:443:https"][..], marked, "https://s.a"),
    ] {
        let world = World::of(&[service_with("a", "s", ports, more)]);
        assert_eq!(world.ask("s.a", "/", None), target, "{ports:?}");
    }
}

#[test]
fn what_a_tool_servers_url_says_comes_back() {
    let world = World::of(&[
        service("kagent", "tools", &["a:8084", "b:9", "tls:443"]),
        remote("kagent", "one", "http://Tools.kagent:8084/mcp?tenant=a"),
        remote("kagent", "two", "http://tools.kagent.svc.cluster.local:9/other"),
        remote("kagent", "three", "https://tools.kagent/secure"),
    ]);
    assert_eq!(world.ask("Tools.kagent", "/mcp", None), "http://tools.kagent:8084?tenant=a");
    assert_eq!(world.ask("tools.kagent", "/mcp/x", None), "http://tools.kagent:8084");
    assert_eq!(
        world.ask("tools.kagent.svc.cluster.local", "/other", None),
        "http://tools.kagent:9"
    );
    assert_eq!(world.ask("tools.kagent", "/secure", None), "https://tools.kagent");
    assert_eq!(world.ask("tools.kagent", "/none", None), "ambiguous: 8084, 9, 443");
}

#[test]
fn a_legacy_servers_post_back_path_finds_it() {
    let sse = json!({ "protocol": "SSE" });
    let world = World::of(&[
        service("kagent", "t", &["a:1", "b:2"]),
        remote_with("kagent", "sse", "http://t.kagent:2/sse", sse),
        remote("kagent", "http", "http://t.kagent:1/mcp"),
    ]);
    assert_eq!(world.ask("t.kagent", "/sse", None), "http://t.kagent:2");
    assert_eq!(world.ask("t.kagent", "/messages/", None), "http://t.kagent:2");
    assert_eq!(world.ask("t.kagent", "/mcp", None), "http://t.kagent:1");
    // Any path is the weakest match, also beside the Service.
    let sse = json!({ "protocol": "SSE" });
    let world = World::of(&[
        service("a", "t", &["x:1", "y:2"]),
        remote_with("a", "sse", "http://t.a:2/sse", sse),
        remote("kagent", "http", "http://t.a:1/mcp"),
    ]);
    assert_eq!(world.ask("t.a", "/mcp", None), "http://t.a:1");
    assert_eq!(world.ask("t.a", "/messages/", None), "http://t.a:2");
}

#[test]
fn two_equal_matches_are_the_callers_choice_or_an_error() {
    let world = World::of(&[
        service("kagent", "t", &["a:1", "b:2"]),
        remote("kagent", "one", "http://t.kagent:1/mcp"),
        remote("kagent", "two", "http://t.kagent:2/mcp"),
        agent("team", "uses-two", &[("RemoteMCPServer", "kagent/two")]),
        agent(
            "team",
            "uses-both",
            &[("RemoteMCPServer", "kagent/two"), ("RemoteMCPServer", "kagent/one")],
        ),
    ]);
    let one = "RemoteMCPServer kagent/one (port 1, path /mcp)";
    let two = "RemoteMCPServer kagent/two (port 2, path /mcp)";
    let ambiguous = format!("ambiguous: {one}, {two}");
    assert_eq!(world.ask("t.kagent", "/mcp", None), ambiguous);
    assert_eq!(world.ask("t.kagent", "/mcp", Some("team/uses-two")), "http://t.kagent:2");
    assert_eq!(world.ask("t.kagent", "/mcp", Some("team/uses-both")), ambiguous);
    assert_eq!(world.ask("t.kagent", "/mcp", Some("team/stranger")), ambiguous);
    let same = World::of(&[
        service("kagent", "t", &["a:1"]),
        remote("kagent", "one", "http://t.kagent:1/mcp"),
        remote("kagent", "two", "http://t.kagent:1/mcp"),
    ]);
    assert_eq!(same.ask("t.kagent", "/mcp", None), "http://t.kagent:1", "they agree");
}

#[test]
fn no_other_team_can_bend_a_route() {
    let evil = remote("evil", "bend", "http://t.team:2/mcp");
    let own = remote("team", "own", "http://t.team:1/mcp");
    let user = agent("evil", "user", &[("RemoteMCPServer", "evil/bend")]);
    let world =
        World::of(&[service("team", "t", &["a:1", "b:2"]), own, evil.clone(), user.clone()]);
    assert_eq!(world.ask("t.team", "/mcp", None), "http://t.team:1");
    assert_eq!(world.ask("t.team", "/mcp", Some("evil/user")), "http://t.team:1", "own outranks");
    // Without a word of the Service's own namespace it binds those that use it, and nobody else.
    let world = World::of(&[service("team", "t", &["a:1", "b:2"]), evil.clone(), user]);
    assert_eq!(world.ask("t.team", "/mcp", Some("evil/user")), "http://t.team:2");
    for (host, path) in [("t.team:1", "/mcp"), ("t.team", "/other")] {
        let beside = world.ask(host, path, Some("evil/user"));
        assert!(beside.starts_with("forbidden: the RemoteMCPServers that open"), "{beside}");
    }
    let (refused, chain) = world.chain("t.team", "/mcp", None, None);
    assert!(
        refused.starts_with(
            "forbidden: this Service is exposed only by RemoteMCPServers in untrusted"
        ),
        "{refused}"
    );
    assert!(chain.iter().any(|n| n.candidate.contains("evil/bend")), "{chain:?}");
    // Trusted namespaces count for everybody.
    let trusted_namespaces = Some(vec!["evil".to_owned()]);
    let mut world =
        World::new(DiscoveryConfig { trusted_namespaces, ..DiscoveryConfig::default() });
    world.apply(&[service("team", "t", &["a:1", "b:2"]), evil]);
    assert_eq!(world.ask("t.team", "/mcp", None), "http://t.team:2");
}

#[test]
fn only_what_is_marked_is_routable() {
    let plain = service("a", "db", &["pg:5432"]);
    let refused = World::of(std::slice::from_ref(&plain)).ask("db.a", "/", None);
    assert!(
        refused.contains("kubectl annotate service -n a db kagent-proxy.dev/route=true"),
        "{refused}"
    );
    for mark in [
        service_with(
            "a",
            "db",
            &["pg:5432"],
            json!({ "annotations": { "kagent-proxy.dev/route": "true" } }),
        ),
        service_with(
            "a",
            "db",
            &["pg:5432"],
            json!({ "labels": { "kagent.dev/mcp-service": "true" } }),
        ),
        service_with(
            "a",
            "db",
            &["pg:5432"],
            json!({ "annotations": { "kagent.dev/mcp-service-path": "/x" } }),
        ),
        service_with("a", "db", &["pg:5432"], owner("SandboxAgent", "s")),
        service("a", "db", &["pg:5432:kgateway.dev/a2a"]),
        agent("a", "db", &[]),
        mcp_server("a", "db", 9),
        (ObjectKind::SandboxAgent, json!({ "metadata": { "namespace": "a", "name": "db" } })),
        remote("a", "r", "http://db.a:5432/mcp"),
        remote("kagent", "r", "http://db.a:5432/mcp"),
        remote_with(
            "a",
            "optin",
            "http://kagent-proxy.kagent.svc:8080/mcp",
            json!({
            "headersFrom": [{ "name": "X-Kagent-Host", "value": "db.a" }] }),
        ),
        agent("a", "user", &[("Service", "db")]),
    ] {
        let world = World::of(&[plain.clone(), mark.clone()]);
        assert_eq!(world.ask("db.a", "/mcp", None), "http://db.a:5432", "{mark:?}");
    }
    // An Agent of another namespace may not mark it.
    let foreign = agent("b", "user", &[("Service", "a/db")]);
    assert!(World::of(&[plain, foreign]).ask("db.a", "/", None).starts_with("forbidden: "));
}

#[test]
fn what_is_never_routable() {
    let allowed = json!({ "annotations": { "kagent-proxy.dev/route": "true" } });
    let external = json!({
        "metadata": { "namespace": "a", "name": "alias", "annotations": { "kagent-proxy.dev/route": "true" } },
        "spec": { "type": "ExternalName", "externalName": "metadata.internal", "ports": [{ "port": 80 }] },
    });
    let mut world = World::new(DiscoveryConfig {
        pod_ips: vec![[10, 0, 0, 9].into()],
        ..DiscoveryConfig::default()
    });
    world.apply(&[
        service_with("default", "kubernetes", &["https:443"], allowed.clone()),
        service_with("kube-system", "dns", &["a:80"], allowed.clone()),
        service_with("kagent", "kagent-proxy", &["http:8080"], allowed),
        slice("kagent", "kagent-proxy", ("http", 8080), &["10.0.0.9"]),
        (ObjectKind::Service, external),
        (ObjectKind::SandboxAgent, json!({ "metadata": { "namespace": "a", "name": "boxed" } })),
    ]);
    for (host, word) in [
        ("kubernetes.default", "API server"),
        ("dns.kube-system", "cluster itself"),
        ("kagent-proxy.kagent", "is this proxy itself"),
        ("alias.a", "ExternalName"),
        ("boxed.a", "/api/a2a-sandboxes/a/boxed"),
    ] {
        let refused = world.ask(host, "/", None);
        assert!(refused.starts_with("forbidden: ") && refused.contains(word), "{host}: {refused}");
    }
}

#[test]
fn the_controller_is_reachable_where_agents_need_it_only() {
    let ports = ["controller:8083", "metrics:9090"];
    let world = World::of(&[service("kagent", "kagent-controller", &ports)]);
    let host = "kagent-controller.kagent";
    let target = "http://kagent-controller.kagent:8083";
    assert_eq!(world.ask(host, "/api/a2a-sandboxes/team/agent", None), target);
    assert_eq!(world.ask(host, "/mcp", None), target);
    assert_eq!(world.ask(host, "/agents/team/agent", None), target, "kagent 1.0");
    for path in ["/agents", "/agents/", "/agents/team", "/agents/team/", "/agents//agent"] {
        let said = world.ask(host, path, None);
        assert!(said.starts_with("forbidden: ") || said == "unsafe path", "{path}: {said}");
    }
    assert!(world.ask(host, "/agentsx", None).starts_with("forbidden: "));
    assert!(world.ask(host, "/api/agents", None).starts_with("forbidden: "));
    assert!(world.ask(host, "/api/sessions", None).starts_with("forbidden: "));
    assert!(world.ask(host, "/mcpx", None).starts_with("forbidden: "));
    assert_eq!(world.ask(host, "/api/a2a-sandboxes/../sessions", None), "unsafe path");
    let moved = World::of(&[service("kagent", "kagent-controller", &["controller:9000", "x:1"])]);
    assert_eq!(moved.ask(host, "/mcp", None), "http://kagent-controller.kagent:9000");
}

#[test]
fn below_a_tool_servers_path_only_plain_paths_pass() {
    let two = service("a", "s", &["x:1", "y:2"]);
    let world = World::of(&[two.clone(), remote("a", "r", "http://s.a:1/mcp")]);
    for path in ["/mcp/../admin", "/mcp/%2e%2e/admin", "/mcp//x", "/mcp/x%2Fy", "/mcp/a\\b"] {
        assert_eq!(world.ask("s.a", path, None), "unsafe path", "{path}");
    }
    for path in ["/mcp", "/mcp/", "/mcp/x", "/mcp/a%20b"] {
        assert_eq!(world.ask("s.a", path, None), "http://s.a:1", "{path}");
    }
    // An URL without a path limits nothing, and one that says such a path itself means it.
    let world = World::of(&[two.clone(), remote("a", "r", "http://s.a:1/")]);
    assert_eq!(world.ask("s.a", "/x/../y", None), "http://s.a:1");
    let world = World::of(&[two, remote("a", "r", "http://s.a:1/m//cp")]);
    assert_eq!(world.ask("s.a", "/m//cp", None), "http://s.a:1");
}

#[test]
fn what_is_not_there_yet_says_so() {
    let world = World::of(&[
        agent("a", "late", &[]),
        remote("a", "ext", "https://foo.dev/mcp"),
        remote("a", "far", "https://api.example.com/mcp"),
    ]);
    assert!(world.ask("late.a", "/", None).starts_with("pending: Agent a/late exists"));
    let external = world.ask("foo.dev", "/mcp", None);
    assert!(
        external.starts_with("missing: ") && external.contains("foo.dev=https://foo.dev:443"),
        "{external}"
    );
    assert_eq!(world.ask("api.example.com", "/mcp", None), "unknown");
}

#[test]
fn a_port_that_the_service_lacks_is_dropped_but_for_headless_ones() {
    let gone = remote("a", "r", "http://s.a:9/mcp");
    let world = World::of(&[service("a", "s", &["x:1"]), gone.clone()]);
    let (target, chain) = world.chain("s.a", "/mcp", None, None);
    assert_eq!(target, "http://s.a:1");
    assert!(
        chain.iter().any(|n| n.candidate.contains("a/r") && n.verdict.contains("no such port"))
    );
    let mut headless = service("a", "s", &["x:1"]);
    headless.1["spec"]["clusterIP"] = json!("None");
    let world = World::of(&[headless, gone, slice("a", "s", ("x", 1), &["10.0.0.1"])]);
    assert_eq!(world.ask("s.a", "/mcp", None), "http://s.a:9");
    assert_eq!(world.endpoints("s.a", "/mcp"), ["10.0.0.1:9"]);
}

#[test]
fn one_pod_of_a_headless_service_by_its_name() {
    let mut slice = slice("a", "db", ("x", 1), &["10.0.0.1", "10.0.0.2"]);
    slice.1["endpoints"][0]["hostname"] = json!("db-0");
    slice.1["endpoints"][1]["hostname"] = json!("db-1");
    let world = World::of(&[
        service("a", "db", &["x:1"]),
        slice,
        remote("a", "r", "http://db-0.db.a.svc.cluster.local:1/mcp"),
    ]);
    assert_eq!(world.endpoints("db-0.db.a.svc.cluster.local", "/mcp"), ["10.0.0.1:1"]);
    assert_eq!(world.endpoints("db-1.db.a.svc", "/mcp"), ["10.0.0.2:1"]);
    assert_eq!(world.endpoints("db.a", "/mcp").len(), 2);
    assert_eq!(world.ask("db-2.db.a.svc", "/mcp", None), "unknown");
    assert_eq!(world.ask("db-1.db.a", "/mcp", None), "unknown", "not without the suffix");
}

#[test]
fn a_namespace_may_be_called_svc() {
    let mark = json!({ "labels": { "kagent.dev/mcp-service": "true" } });
    let world = World::of(&[service_with("svc", "x", &["a:1"], mark)]);
    assert_eq!(world.ask("x.svc", "/", None), "http://x.svc:1");
    assert_eq!(world.ask("x.svc.svc.cluster.local", "/", None), "http://x.svc:1");
}
