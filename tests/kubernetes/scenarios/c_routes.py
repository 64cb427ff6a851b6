"""Which pod and port a header and a path lead to: the rows of the contract's tables 1.2 to 1.4 and 2.1.

Two Deployments, alpha and beta, listen on every port that is used, and each Service selects one of them, so
both the pod and the port of an answer tell. Services have more ports than the right one where that is legal.
"""

from api import until
from world import World, deployment, kagent, scenario, service

PORTS = "80-3000-3001-4000-8000-8080-8083-8084-8085-8090-9000-9090-18083-18084"
MANAGED = {"app.kubernetes.io/managed-by": "kagent", "app.kubernetes.io/part-of": "kagent"}


def port(number: int, name: str = "", **more) -> dict:
    return {"name": name or f"p{number}", "port": number, **more}


def remote(namespace: str, name: str, url: str, **spec) -> dict:
    spec = {"description": "d", "protocol": "STREAMABLE_HTTP", "url": url, **spec}
    return kagent("RemoteMCPServer", namespace, name, spec)


def agent(namespace: str, name: str, *tools: dict) -> dict:
    if not tools:
        return kagent(
            "Agent", namespace, name, {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
        )
    declarative = {"modelConfig": "m", "systemMessage": "hi", "tools": list(tools)}
    return kagent("Agent", namespace, name, {"type": "Declarative", "description": "d", "declarative": declarative})


def agent_service(made: dict, app: str, number: int = 8080) -> dict:
    """The Service that kagent's controller makes for an Agent."""
    meta = made["metadata"]
    owner = {"apiVersion": made["apiVersion"], "kind": "Agent", "name": meta["name"], "uid": meta["uid"]}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    labels = {"app": "kagent", "kagent": meta["name"], **MANAGED}
    more = {"labels": labels, "ownerReferences": [owner]}
    return service(meta["namespace"], meta["name"], number, app=app, metadata=more)


def stage(world: World) -> None:
    """Namespaces, definitions and the two backends."""
    world.definitions()
    for space in ("kagent", "tools", "team-a", "dev"):
        world.namespace(space)
        for app in ("alpha", "beta"):
            if space != "dev":
                world.apply(deployment(space, app, f"backend:{PORTS}"))
    for space in ("kagent", "tools", "team-a"):
        until(lambda s=space: {p.pod_name.split("-")[0] for p in list(world.kubelet.pods.values())
                               if p.namespace == s and p.is_ready} >= {"alpha", "beta"}, 60,
              lambda s=space: world.state(s))  # fmt: skip


@scenario
def table_internal(world: World) -> None:
    """kubernetes: every rewritten row of table 1.2 is routed: short, long, pod, upper-case and query names"""
    stage(world)
    fqdn = "svc.cluster.local"
    stateful = deployment("tools", "pod", "backend:80-8084")
    stateful["kind"] = "StatefulSet"
    stateful["spec"] |= {"serviceName": "stateful", "replicas": 2}
    world.apply(
        service("kagent", "tools", port(8084, targetPort=18084), port(8085), app="alpha"),
        remote("kagent", "tools", "http://tools.kagent:8084/mcp"),
        service("tools", "long", port(8085), port(8084), app="beta"),
        remote("kagent", "long", f"http://long.tools.{fqdn}:8084/mcp"),
        service("tools", "stateful", port(80), port(8084), app="pod", clusterIP="None"),
        stateful,
        remote("kagent", "stateful", f"http://pod-1.stateful.tools.{fqdn}/mcp"),
        service("kagent", "upper", port(8085), port(8084), app="beta"),
        remote("kagent", "upper", "http://Upper.kagent:8084/mcp"),
        service("kagent", "query", port(8085), port(8084), app="alpha"),
        remote("kagent", "query", "http://query.kagent:8084/mcp?tenant=a"),
        remote("kagent", "foo", "https://foo.dev/mcp"),
    )
    world.wait_ready("tools", "stateful", 2)
    proxy = world.proxy()
    saw = proxy.routed("tools.kagent", "/mcp", "alpha", 18084, method="POST", body=b"{}")
    assert ["host", "tools.kagent:8084"] in [[n.lower(), v] for n, v in saw["headers"]], saw
    for name in ("tools.kagent", f"tools.kagent.{fqdn}", "tools.kagent.svc", "TOOLS.Kagent.", "tools.kagent:8084"):
        proxy.routed(name, "/mcp", "alpha", 18084)
    proxy.routed(f"long.tools.{fqdn}", "/mcp", "beta", 8084)
    proxy.routed("long.tools", "/mcp", "beta", 8084)
    for _ in range(5):
        saw = proxy.routed(f"pod-1.stateful.tools.{fqdn}", "/mcp", "pod", 80)
        assert saw["pod"] == "pod-1", saw
    proxy.routed("Upper.kagent", "/mcp", "beta", 8084)
    saw = proxy.routed("query.kagent", "/mcp", "alpha", 8084)
    assert saw["path"] == "/mcp?tenant=a", saw
    text = str(proxy.refused("foo.dev", "/mcp", 503, "unknown_target"))
    assert "foo.dev=https://foo.dev" in text, text


@scenario
def table_agents(world: World) -> None:
    """kubernetes: every row of table 1.3 is routed: agents, those at the controller, of 1.0 too, its MCP path"""
    stage(world)
    [made] = world.apply(agent("team-a", "helper"))
    controller = service("kagent", "kagent-controller", port(8090, "other"), port(8083, "controller"), app="alpha")
    world.apply(
        agent_service(made, "beta"),
        controller,
        kagent(
            "SandboxAgent", "team-a", "sb", {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
        ),
        remote("kagent", "controller", "http://kagent-controller.kagent:8083/mcp"),
    )
    proxy = world.proxy()
    saw = proxy.routed("helper.team-a", "/", "beta", 8080, method="POST", body=b"{}")
    assert ["host", "helper.team-a:8080"] in [[n.lower(), v] for n, v in saw["headers"]], saw
    proxy.routed("helper.team-a", "/.well-known/agent-card.json", "beta", 8080)
    proxy.routed("helper.team-a", "/", "beta", 8080, Host="other.ns:9999")
    sandbox = "/api/a2a-sandboxes/team-a/sb"
    newer = "/agents/team-a/sb"
    places = [f"{agent}{end}" for agent in (sandbox, newer) for end in ("", "/", "/.well-known/agent-card.json")]
    for path in (*places, "/mcp"):
        assert proxy.routed("kagent-controller.kagent", path, "alpha", 8083)["path"] == path
    for path in ("/api/sessions", "/agents", "/agents/team-a", "/agents/team-a/", "/agentsx/team-a/sb"):
        proxy.refused("kagent-controller.kagent", path, 403, "forbidden_target")
    for path in (f"{sandbox}/../../sessions", f"{newer}/../../../api/sessions", f"{newer}/%2e%2e/%2e%2e/api/sessions"):
        proxy.refused("kagent-controller.kagent", path, 400, "bad_path")
    # The literal 8083 of the rewritten URL is not the port, the Service's port is.
    controller["spec"]["ports"] = [port(8090, "other"), port(18083, "controller")]
    world.apply(controller)
    for path in (sandbox, newer):
        proxy.routed("kagent-controller.kagent", path, "alpha", 18083)


@scenario
def table_tools(world: World) -> None:
    """kubernetes: every row of tables 1.4 and 2.1 is routed: MCPServers, marked Services, the chart's servers"""
    stage(world)
    server = {"transportType": "http", "deployment": {"image": "backend:3001-4000", "port": 3001, "cmd": "run"}}
    server["httpTransport"] = {"targetPort": 9999, "path": "/ignored"}
    annotation = "kagent.dev/mcp-service-"
    world.apply(
        kagent("MCPServer", "tools", "fetch", server),
        service("tools", "annotated", port(80), port(9000), app="alpha",
                metadata={"annotations": {f"{annotation}port": "9000", f"{annotation}path": "/x/mcp"}}),
        service("tools", "protocol", port(80), port(9000, appProtocol="mcp"), app="beta"),
        service("tools", "only", port(9090), app="alpha", metadata={"labels": {"kagent.dev/mcp-service": "true"}}),
        service("kagent", "kagent-tools", port(8084, "tools"), app="beta"),
        remote("kagent", "tool-server", "http://kagent-tools.kagent:8084/mcp", timeout="30s", sseReadTimeout="5m0s"),
        service("kagent", "kagent-tools-metrics", port(8085, "metrics"), app="beta"),
        service("kagent", "grafana-mcp", port(8000, "http"), app="alpha"),
        remote("kagent", "grafana", "http://grafana-mcp.kagent:8000/mcp"),
        service("kagent", "querydoc", port(8080, "http", appProtocol="mcp"), app="beta",
                metadata={"labels": {"kagent.dev/mcp-service": "true"}}),
        service("tools", "legacy", port(8085), port(8084), app="alpha"),
        remote("kagent", "legacy", "http://legacy.tools:8084/sse", protocol="SSE"),
        service("tools", "noport", port(80), port(8084), app="beta"),
        remote("kagent", "noport", "http://noport.tools/mcp"),
    )  # fmt: skip
    if "kmcp" not in world.plane.running:
        world.plane.start_kmcp()
    proxy = world.proxy()
    for host, path, app, number in (
        ("fetch.tools", "/mcp", "fetch", 3001),
        ("annotated.tools", "/x/mcp", "alpha", 9000),
        ("protocol.tools", "/mcp", "beta", 9000),
        ("only.tools", "/mcp", "alpha", 9090),
        ("kagent-tools.kagent", "/mcp", "beta", 8084),
        ("grafana-mcp.kagent", "/mcp", "alpha", 8000),
        ("querydoc.kagent", "/mcp", "beta", 8080),
        # The POST-back path of a legacy SSE server is not below its own.
        ("legacy.tools", "/sse", "alpha", 8084),
        ("legacy.tools", "/messages/?session_id=abc", "alpha", 8084),
        ("noport.tools", "/mcp", "beta", 80),
    ):
        assert proxy.routed(host, path, app, number, seconds=30)["path"] == path, host
    # Its port is edited: kmcp changes Service and Deployment, new requests follow.
    server["deployment"] |= {"port": 4000}
    world.apply(kagent("MCPServer", "tools", "fetch", server))
    proxy.routed("fetch.tools", "/mcp", "fetch", 4000, seconds=30)


@scenario
def same_host(world: World) -> None:
    """kubernetes: tool servers of one host are told apart by path, then by the calling agent, else ambiguous"""
    stage(world)
    tool = {"type": "McpServer", "mcpServer": {"kind": "RemoteMCPServer", "apiGroup": "kagent.dev", "name": "same-two"}}
    [made] = world.apply(agent("kagent", "caller", tool))
    world.apply(
        service("kagent", "split", port(8084), port(8090), app="alpha"),
        remote("kagent", "split-one", "http://split.kagent:8084/mcp"),
        remote("kagent", "split-two", "http://split.kagent:8090/docs/mcp"),
        service("kagent", "same", port(8084), port(8090), app="beta"),
        remote("kagent", "same-one", "http://same.kagent:8084/mcp"),
        remote("kagent", "same-two", "http://same.kagent:8090/mcp"),
        deployment("kagent", "caller-pod", "backend:8080"),
        agent_service(made, "caller-pod"),
    )
    world.wait_ready("kagent", "caller")
    proxy = world.proxy()
    proxy.routed("split.kagent", "/mcp", "alpha", 8084)
    proxy.routed("split.kagent", "/docs/mcp", "alpha", 8090)
    text = str(proxy.refused("same.kagent", "/mcp", 500, "ambiguous_target"))
    assert "same-one" in text and "same-two" in text, text
    proxy.routed("same.kagent", "/mcp", "beta", 8090, caller=world.kubelet.pod("caller-pod"))
    proxy.refused("same.kagent", "/mcp", 500, "ambiguous_target", caller=world.kubelet.pod("alpha"))


@scenario
def refused(world: World) -> None:
    """kubernetes: what is no agent and no tool server is refused, with the reason and what would allow it"""
    stage(world)
    world.apply(
        service("tools", "unmarked", port(9090), app="alpha"),
        service("team-a", "external", port(80), type="ExternalName", externalName="example.com"),
        remote("kagent", "external", "http://external.team-a/mcp"),
        service(
            "kube-system", "dns", port(9090), app="alpha", metadata={"annotations": {"kagent-proxy.dev/route": "true"}}
        ),
        service("tools", "bent", port(9090), app="alpha"),
        remote("team-a", "bends", "http://bent.tools:9090/mcp"),
    )
    [made] = world.apply(agent("team-a", "known"))
    world.apply(agent_service(made, "alpha"))
    proxy = world.proxy()
    proxy.routed("known.team-a", "/", "alpha", 8080)
    text = str(proxy.refused("unmarked.tools", "/mcp", 403, "forbidden_target"))
    assert "kagent-proxy.dev/route" in text, text
    # Another team's word does not count.
    proxy.refused("bent.tools", "/mcp", 403, "forbidden_target")
    for host in ("external.team-a", "kubernetes.default", "dns.kube-system", "kagent-proxy.kagent"):
        proxy.refused(host, "/", 403, "forbidden_target")
    proxy.refused("known.team-a:22", "/", 400, "bad_target")
    proxy.refused("169.254.169.254", "/", 400, "bad_target")
    proxy.refused(None, "/", 400, "missing_target")
    text = str(proxy.refused("knowm.team-a", "/", 503, "unknown_target"))
    assert "known.team-a" in text, text
    # The one line that the refusal proposes does allow it.
    world.apply(
        service(
            "tools", "unmarked", port(9090), app="alpha", metadata={"annotations": {"kagent-proxy.dev/route": "true"}}
        )
    )
    proxy.routed("unmarked.tools", "/mcp", "alpha", 9090)


@scenario
def opt_in(world: World) -> None:
    """kubernetes: a literal x-kagent-host in a tool server's headers opens the host that it names"""
    stage(world)
    world.apply(service("kagent", "opted", port(9090), app="beta"))
    proxy = world.proxy()
    proxy.refused("opted.kagent", "/mcp", 403, "forbidden_target")
    header = {"name": "x-kagent-host", "value": "opted.kagent"}
    world.apply(remote("kagent", "opted", "http://kagent-proxy.kagent.svc:8080/mcp", headersFrom=[header]))
    proxy.routed("opted.kagent", "/mcp", "beta", 9090)


@scenario
def pods_of_a_service(world: World) -> None:
    """kubernetes: requests go to every ready pod and, once known, to those of our own zone"""
    stage(world)
    [made] = world.apply(agent("team-a", "many"))
    world.apply(deployment("team-a", "many-pod", "backend:8080", 3), agent_service(made, "many-pod"))
    zones = {e["targetRef"]["name"]: e["zone"] for e in world.wait_ready("team-a", "many", 3)}
    proxy = world.proxy()
    [own] = {e["zone"] for e in world.ready_endpoints("kagent", "kagent-proxy")}
    expected = {name for name, zone in zones.items() if zone == own} or set(zones)

    def asked() -> set[str]:
        return {proxy.routed("many.team-a", "/", "many", 8080)["pod"] for _ in range(20)}

    until(lambda: asked() == expected, 20, lambda: f"{asked()} are {expected} of {zones}, we are in {own}")
    # Without a ready pod in our zone the others are as good.
    other = next(zone for zone in ("zone-a", "zone-b") if zone != own)
    moved = deployment("team-a", "many-pod", "backend:8080", 3)
    moved["spec"]["template"]["spec"]["nodeSelector"] = {"topology.kubernetes.io/zone": other}
    world.apply(moved)
    until(lambda: {e["zone"] for e in world.endpoints("team-a", "many")} == {other}, 60, "all pods moved")
    expected = {e["targetRef"]["name"] for e in world.wait_ready("team-a", "many", 3)}
    until(lambda: asked() == expected, 20, lambda: f"{asked()} are {expected}")


@scenario
def only_ipv6(world: World) -> None:
    """kubernetes: an agent whose Service is of IPv6 only is reached"""
    stage(world)
    [made] = world.apply(agent("team-a", "six"))
    six = agent_service(made, "beta")
    six["spec"] |= {"ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}
    world.apply(six)
    world.proxy().routed("six.team-a", "/", "beta", 8080)
