"""Custom resource definitions: absent, added later, of every version; and what kmcp makes of its own.

The first scenario removes the definitions if another one applied them, with all their objects.
"""

import crds
from api import ApiError, until
from world import World, ask, deployment, kagent, scenario, service

KINDS = ("agents", "sandboxagents", "remotemcpservers", "mcpservers")


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
    version = "apiextensions.k8s.io/v1"
    for name in (f"{kind}.kagent.dev" for kind in KINDS):
        world.api.delete({"apiVersion": version, "kind": "CustomResourceDefinition", "metadata": {"name": name}})

    def gone() -> bool:
        try:
            world.api.request("GET", "/apis/kagent.dev")
        except ApiError as error:
            return error.code == 404
        return False

    until(gone, 60, "kagent's definitions are gone")
    world.defined = None
    world.api.kinds.clear()


@scenario
def definitions_of_every_version(world: World) -> None:
    """kubernetes: the custom resource definitions of every kagent version are served, and ours."""
    space = world.namespace("definitions")
    spec = {"description": "d", "url": "http://a.b:1/mcp", "protocol": "STREAMABLE_HTTP"}
    for version in crds.versions():
        world.definitions(version)
        made = kagent("RemoteMCPServer", space, f"r-{version}", spec)
        world.apply(made)
        assert world.api.get("kagent.dev/v1alpha2", "RemoteMCPServer", space, f"r-{version}")
        for kind in ("Agent", "SandboxAgent"):
            until(lambda k=kind: world.api.list("kagent.dev/v1alpha2", k, space) == [], 30, f"{kind} of {version}")
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
