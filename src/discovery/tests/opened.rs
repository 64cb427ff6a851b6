//! What a literal `x-kagent-host` of a tool server's object opens, with a port and without one, and for whom.

use super::*;

/// A `RemoteMCPServer` that goes through the proxy to this host.
fn opted(namespace: &str, name: &str, host: &str) -> (ObjectKind, Value) {
    let headers = json!([{ "name": "x-kagent-host", "value": host }]);
    let url = "http://kagent-proxy.kagent.svc:8080/mcp";
    remote_with(namespace, name, url, json!({ "headersFrom": headers }))
}

#[test]
fn a_header_with_a_port_opens_that_port_for_the_callers_that_name_it() {
    let uses = |name: &str, tools: &[&str]| {
        let tools: Vec<(&str, &str)> = tools.iter().map(|t| ("RemoteMCPServer", *t)).collect();
        agent("b", name, &tools)
    };
    let mut world = World::of(&[
        service("a", "tools", &["x:8083", "y:8084", "z:8085"]),
        opted("b", "x", "tools.a:8084"),
        opted("b", "plain", "tools.a"),
        remote("b", "url", "http://tools.a:8083/mcp"),
        uses("u", &["x"]),
        uses("p", &["plain"]),
        uses("all", &["x", "plain", "url"]),
    ]);
    for (caller, host, path, said) in [
        ("b/u", "tools.a:8084", "/mcp", "http://tools.a:8084"),
        ("b/u", "tools.a:8084", "/other", "http://tools.a:8084"),
        ("b/u", "tools.a:8083", "/mcp", "forbidden: x-kagent-host with port 8084"),
        ("b/u", "tools.a:8085", "/mcp", "forbidden: x-kagent-host with port 8084"),
        ("b/u", "tools.a", "/mcp", "forbidden: x-kagent-host with port 8084"),
        ("b/u", "tools.a:9", "/mcp", "no port 9 of [8084]"),
        ("b/p", "tools.a", "/mcp", "ambiguous: 8083, 8084, 8085"),
        ("b/p", "tools.a:8084", "/mcp", "forbidden: x-kagent-host without a port"),
        ("b/all", "tools.a", "/mcp", "http://tools.a:8083"),
        ("b/all", "tools.a:8084", "/mcp", "http://tools.a:8084"),
        ("b/all", "tools.a", "/other", "ambiguous: 8083, 8084, 8085"),
        (
            "b/all",
            "tools.a:8083",
            "/other",
            "forbidden: port 8083 on path /mcp; x-kagent-host without a port; x-kagent-host with port 8084",
        ),
        ("b/all", "tools.a:9", "/mcp", "no port 9 of [8083, 8084]"),
    ] {
        let answer = world.ask(host, path, Some(caller));
        let only = "the RemoteMCPServers that open this Service for the caller name only: ";
        assert_eq!(answer.replace(only, ""), said, "{caller} {host} {path}");
    }
    // A header opens no port that the Service does not have, and an error names none.
    world.apply(&[opted("b", "x", "tools.a:7"), opted("b", "plain", "tools.a:8085")]);
    assert_eq!(world.ask("tools.a:7", "/mcp", Some("b/u")), "no port 7 of []");
    assert_eq!(world.ask("tools.a:7", "/mcp", Some("b/all")), "no port 7 of [8083, 8085]");
    world.apply(&[opted("b", "x", "tools.a:8084"), opted("b", "plain", "tools.a")]);
    // A Host names no port that an object does not.
    let hinted = |caller: &str| world.chain("tools.a", "/x", Some(caller), Some("tools.a:8084")).0;
    assert_eq!(hinted("b/p"), "ambiguous: 8083, 8084, 8085");
    assert_eq!(hinted("b/all"), "http://tools.a:8084");
    // The remedy of the ambiguous form, followed, works; and another port written, the first one closes.
    world.apply(&[opted("b", "plain", "tools.a:8085")]);
    assert_eq!(world.ask("tools.a:8085", "/mcp", Some("b/p")), "http://tools.a:8085");
    world.apply(&[opted("b", "plain", "tools.a:8083")]);
    assert!(world.ask("tools.a:8085", "/mcp", Some("b/p")).starts_with("forbidden: "));
}

#[test]
fn a_headless_service_without_ports_is_dialled_at_the_port_of_the_header() {
    let mut headless = service("a", "t", &[]);
    headless.1["spec"] = json!({ "clusterIP": "None", "ports": [] });
    let user = agent("b", "u", &[("RemoteMCPServer", "r")]);
    let mut world = World::of(&[headless, opted("b", "r", "t.a:7000"), user]);
    assert_eq!(world.ask("t.a:7000", "/mcp", Some("b/u")), "http://t.a:7000");
    assert!(world.ask("t.a:7000", "/mcp", None).starts_with("forbidden: "));
    // Opened by its own namespace, it has the ports that count for everybody.
    world.apply(&[opted("a", "r", "t.a:7001")]);
    assert_eq!(world.ask("t.a:7001", "/mcp", None), "http://t.a:7001");
    assert_eq!(world.ask("t.a:7000", "/mcp", Some("b/u")), "no port 7000 of [7001]");
}
