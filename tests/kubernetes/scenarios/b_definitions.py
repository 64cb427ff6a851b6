"""Custom resource definitions: absent, added later, of every version; and what kmcp makes of its own.

The first scenario removes the definitions if another one applied them, with all their objects.
"""

import crds
from api import until
from world import World, ask, deployment, kagent, scenario, service


@scenario
def definitions_come_later(world: World) -> None:
    """kubernetes: without any kagent definition the proxy gets ready, and takes up each one when it comes"""
    remove(world)
    space = world.namespace("tools")
    ports = [{"name": "a", "port": 8084}, {"name": "b", "port": 8085}]
    world.apply(
        deployment(space, "late", "backend:8084-8085"),
        service(space, "late", *ports),
        service(space, "marked", 8084, app="late", metadata={"annotations": {"kagent-proxy.dev/route": "true"}}),
    )
    world.wait_ready(space, "late")
    world.end_proxy()
    proxy = world.proxy()
    proxy.routed("marked.tools", "/mcp", "late", 8084)
    proxy.refused("late.tools", "/mcp", 403, "forbidden_target")
    first = proxy.pod.uid
    world.definitions(crds.OWN)
    spec = {"description": "d", "protocol": "STREAMABLE_HTTP", "url": "http://late.tools:8085/mcp"}
    world.namespace("kagent")
    world.apply(kagent("RemoteMCPServer", "kagent", "late", spec))
    # kube looks for new kinds now and then; the proxy promises no more than "later, without a restart".
    proxy.routed("late.tools", "/mcp", "late", 8085, seconds=90)
    agents(world, proxy)
    assert proxy.pod.uid == first and proxy.pod.containers[0].restarts == 0


def agents(world: World, proxy) -> None:
    """An Agent of the definition that came later, with a Service that only its name marks."""
    byo = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
    world.apply(kagent("Agent", "tools", "newcomer", byo), service("tools", "newcomer", 8085, app="late"))
    proxy.routed("newcomer.tools", "/", "late", 8085, seconds=90)


def remove(world: World) -> None:
    """Takes away kagent's definitions, and so all their objects."""
    version, kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"

    def gone() -> bool:
        found = world.api.list(version, kind)
        for thing in found:
            world.api.delete({"apiVersion": version, "kind": kind, **thing})
        return not found

    until(gone, 60, lambda: world.plane.kubectl("get", "crd"))
    world.defined = None
    world.api.kinds.clear()


@scenario
def definitions_of_every_version(world: World) -> None:
    """kubernetes: the custom resource definitions of every kagent version are served, and ours."""
    space = world.namespace("definitions")
    world.apply(deployment(space, "echo", "backend:8084-8085"))
    proxy = world.proxy()
    ports = [{"name": "a", "port": 8084}, {"name": "b", "port": 8085}]
    for number, version in enumerate(crds.versions()):
        world.definitions(version)
        name = f"of-{number}"
        spec = {"description": "d", "url": f"http://{name}.{space}:8085/mcp", "protocol": "STREAMABLE_HTTP"}
        byo = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
        world.apply(
            service(space, name, *ports, app="echo"),
            service(space, f"agent-{number}", 8084, app="echo"),
            kagent("Agent", space, f"agent-{number}", byo),
            kagent("RemoteMCPServer", space, name, spec),
        )
        proxy.routed(f"{name}.{space}", "/mcp", "echo", 8085, seconds=60)
        proxy.routed(f"agent-{number}.{space}", "/", "echo", 8084, seconds=60)
        until(lambda: world.api.list("kagent.dev/v1alpha2", "SandboxAgent", space) == [], 30, version)
    world.definitions()


@scenario
def kmcp_makes_services(world: World) -> None:
    """kubernetes: kmcp's controller makes the Service and Deployment of an MCPServer, as recorded."""
    world.definitions()
    if "kmcp" not in world.plane.running:
        world.plane.start_kmcp()
    space = world.namespace("kmcp")
    deploy = {"image": "backend:3001", "port": 3001, "cmd": "run"}
    stdio = {"image": "backend:3002", "port": 3002, "cmd": "run"}
    http = {"transportType": "http", "deployment": deploy, "httpTransport": {"targetPort": 3001}}
    world.apply(
        kagent("MCPServer", space, "kmcp-one", http),
        kagent("MCPServer", space, "kmcp-stdio", {"transportType": "stdio", "deployment": stdio, "stdioTransport": {}}),
    )
    for name, port in (("kmcp-one", 3001), ("kmcp-stdio", 3002)):
        found = world.wait_ready(space, name)
        # kmcp writes no readiness probe, so a ready pod may not listen yet.
        until(lambda f=found, p=port: ask(f[0]["addresses"][0], p)[2]["port"] == p, 30, f"{name} answers")
        made = world.api.get("v1", "Service", space, name)
        record = {"appProtocol": "kgateway.dev/mcp", "name": "http", "protocol": "TCP"}
        record |= {"port": port, "targetPort": port}
        assert made["spec"]["ports"] == [record], made
        [owner] = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner.get("controller")) == ("MCPServer", name, None), owner
        for golden in crds.golden("kmcp-0.3.0/created.json") or []:
            if golden["kind"] == "Service" and golden["metadata"]["name"] == name:
                assert golden["spec"]["ports"] == made["spec"]["ports"], (golden, made)
                assert golden["spec"]["selector"] == made["spec"]["selector"], (golden, made)


@scenario
def malformed_objects(world: World) -> None:
    """kubernetes: objects of shapes that nobody expects break nothing, and count once they are mended"""
    remove(world)
    world.definitions(crds.OWN)
    space = world.namespace("odd")
    world.apply(deployment(space, "odd", "backend:8084-8085"))
    ports = [{"name": "a", "port": 8084}, {"name": "b", "port": 8085}]
    shapes = {
        "RemoteMCPServer": ({"url": 7}, {"url": "://"}, {"url": None, "tls": 1}, {"headersFrom": {"a": 1}}, {}),
        "Agent": ({"type": 1}, {"declarative": []}, {"declarative": {"tools": [None, 1, {"mcpServer": "x"}]}}, {}),
        "SandboxAgent": ({"x": "y"}, {}),
        "MCPServer": ({"deployment": {"port": "http"}}, {"deployment": 3}, {"deployment": {"port": 99999999}}, {}),
    }
    proxy = world.proxy()
    for kind, specs in shapes.items():
        for number, spec in enumerate(specs):
            world.apply(kagent(kind, space, f"odd-{number}", spec | {"fromTheFuture": {"a": [1]}}))
        without = kagent(kind, space, "nothing", {})
        del without["spec"]
        world.apply(without)
    world.apply(service(space, "mended", *ports, app="odd"), service(space, "well", 8084, app="odd"))
    world.apply(kagent("Agent", space, "well", {}))
    proxy.routed(f"well.{space}", "/", "odd", 8084)
    url = f"http://mended.{space}:8085/mcp"
    world.apply(kagent("RemoteMCPServer", space, "odd-0", {"url": url}))
    proxy.routed(f"mended.{space}", "/mcp", "odd", 8085)
    assert proxy.pod.containers[0].restarts == 0, proxy.log()
    # What comes first to a proxy that starts now is all of them.
    world.end_proxy()
    proxy = world.proxy()
    proxy.routed(f"mended.{space}", "/mcp", "odd", 8085)
    remove(world)
    # With their definition the objects are gone, and with them their marks.
    proxy.refused(f"mended.{space}", "/mcp", 403, "forbidden_target", seconds=60)
    world.definitions()
