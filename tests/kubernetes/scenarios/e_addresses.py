"""Whose an address is: slices that claim what is another's, with and without the right to see Pods.

A tenant who may write Services and EndpointSlices of its own namespace, and nothing else, plays the attacks. Each
is told by what the proxy answers: reached is an answer of the one behind the address.
"""

import contextlib
import http.server
import json
import threading

from api import until
from c_routes import agent, agent_service, port
from e_rights import Rights, rendered_rights
from network import BRIDGE, GATEWAY, ip
from world import World, deployment, scenario, service

from proxy import NAME, SPACE, Proxy

TENANT, VICTIM = "address-tenant", "address-victim"
OUTSIDE = "10.202.0.1"
WITHOUT = "without the right to list pods the proxy believes EndpointSlices"


def stage(world: World) -> dict[str, str]:
    """The victims, each with a pod of its own; gives the address of each."""
    world.definitions()
    for space in (SPACE, TENANT, VICTIM):
        world.namespace(space)
    [made] = world.apply(agent(VICTIM, "victim"))
    [spy] = world.apply(agent(TENANT, "spy"))
    world.apply(
        deployment(SPACE, "controller", "backend:8083"),
        service(SPACE, "kagent-controller", port(8083, "controller"), app="controller"),
        deployment(VICTIM, "victim", "backend:8080"),
        agent_service(made, "victim"),
        deployment(VICTIM, "bystander", "backend:8080"),
        service(VICTIM, "bystander", 8080),
        deployment(TENANT, "spy", "backend:8080"),
        agent_service(spy, "spy"),
    )
    for space, name in ((SPACE, "kagent-controller"), (VICTIM, "victim"), (VICTIM, "bystander"), (TENANT, "spy")):
        world.wait_ready(space, name)
    return {name: world.kubelet.pod(name).address for name in ("controller", "victim", "bystander", "spy")}


def claim(name: str, address: str, number: int) -> list[dict]:
    """A tenant's own annotated Service and a slice that it wrote by hand."""
    meta = {"annotations": {"kagent-proxy.dev/route": "true"}}
    made = service(TENANT, name, number, metadata=meta, clusterIP="None")
    del made["spec"]["selector"]
    return [made, slice_of(name, address, number)]


def slice_of(name: str, address: str, number: int) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-by-hand",
            "namespace": TENANT,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": number, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }


def left_out(proxy, name: str) -> str:
    """Why nothing is dialled behind a Service of the tenant, by /routes."""
    routes = json.loads(proxy.admin("/routes")[1])["routes"]
    return "; ".join(left["why"] for r in routes if r["host"] == f"{name}.{TENANT}" for left in r.get("leftOut", []))


def attacks(world: World, proxy, addresses: dict[str, str], why: dict[str, str]) -> None:
    """Each attack leads nowhere, and /routes says why."""
    [replica] = [
        p for p in list(world.kubelet.pods.values())
        if p.pod_name.startswith(NAME) and p.is_ready and p is not proxy.pod
    ]  # fmt: skip
    served = (
        ("to-controller", addresses["controller"], 8083, "/api/sessions"),
        ("to-admin", replica.address, 9090, "/metrics"),
        ("to-server", GATEWAY, world.plane.port, "/version"),
        ("to-victim", addresses["bystander"], 8080, "/"),
    )
    for name, address, number, path in served:
        made = claim(name, address, number)
        world.apply(*made)
        proxy.refused(f"{name}.{TENANT}", path, 503, "no_ready_endpoint", seconds=20)
        found = left_out(proxy, name)
        assert why[name] in found, (name, found)
        for thing in reversed(made):
            world.api.delete(thing)
    proxy.routed(f"victim.{VICTIM}", "/", "victim", 8080)
    proxy.routed("kagent-controller.kagent", "/mcp", "controller", 8083)


def caller(proxy, address: str) -> str | None:
    return json.loads(proxy.admin(f"/explain?host=victim.{VICTIM}&path=/&from={address}")[1]).get("caller")


@scenario
def slices_prove_nothing(world: World) -> None:
    """kubernetes: a hand-written slice leads to nobody else's pod, to no admin port and to no API server"""
    addresses = stage(world)
    proxy = world.proxy(replicas=2)
    foreign = "of another namespace"
    attacks(
        world, proxy, addresses,
        {"to-controller": foreign, "to-admin": foreign, "to-victim": foreign, "to-server": "no running Pod"},
    )  # fmt: skip
    # Its own pod it may name, without a selector and by hand.
    world.apply(*claim("own", addresses["spy"], 8080))
    proxy.routed(f"own.{TENANT}", "/", "spy", 8080)
    assert proxy.metric("kagent_proxy_discovery_up", kind="pods") == 1


@scenario
def identity_is_the_pods(world: World) -> None:
    """kubernetes: a slice with a stranger's address gives a tenant's agent nobody's identity and takes none away"""
    addresses = stage(world)
    proxy = world.proxy(replicas=2)
    until(lambda: caller(proxy, addresses["spy"]) == f"{TENANT}/spy", 20, "the agent's own pod is known")
    for name in ("bystander", "victim"):
        made = slice_of("spy", addresses[name], 8080)
        world.apply(made)
        until(lambda: "of another namespace" in left_out(proxy, "spy"), 20, lambda: left_out(proxy, "spy"))
        assert caller(proxy, addresses["bystander"]) is None
        assert caller(proxy, addresses["victim"]) == f"{VICTIM}/victim"
        world.api.delete(made)


@scenario
def addresses_outside(world: World) -> None:
    """kubernetes: addresses that are no pod's are reached where externalEndpoints allows them, but not the API server"""
    stage(world)
    ip("addr", "replace", f"{OUTSIDE}/32", "dev", BRIDGE)
    with outside() as number:
        proxy = world.proxy(replicas=2)
        world.apply(*claim("outside", OUTSIDE, number))
        proxy.refused(f"outside.{TENANT}", "/", 503, "no_ready_endpoint")
        proxy = world.proxy(discovery={"externalEndpoints": ["10.202.0.0/24", f"{GATEWAY}/32"]})
        until(lambda: proxy.ask(f"outside.{TENANT}", "/")[0] == 200, 20, lambda: left_out(proxy, "outside"))
        world.apply(*claim("outside", GATEWAY, world.plane.port))
        proxy.refused(f"outside.{TENANT}", "/version", 503, "no_ready_endpoint", seconds=20)
        assert "default/kubernetes" in left_out(proxy, "outside"), left_out(proxy, "outside")


@contextlib.contextmanager
def outside():
    """A server that is no pod; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802: the base class calls it so
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer((OUTSIDE, 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@scenario
def without_pods(world: World) -> None:
    """kubernetes: without the right to pods what is surely another's counts for nobody, loudly, until it is given"""
    addresses = stage(world)
    world.end_proxy()
    made = Rights(world, replicas=2)
    made.without = ("pods",)
    with made as proxy:
        assert proxy.metric("kagent_proxy_discovery_up", kind="pods") == 0, proxy.discovery()
        for line in ("allow get, list and watch on pods", WITHOUT):
            assert line in proxy.log(), (line, proxy.log())
        too = "claims it too"
        attacks(
            world, proxy, addresses,
            {"to-controller": "kagent-controller", "to-admin": too, "to-victim": too, "to-server": "default/kubernetes"},
        )  # fmt: skip
        # What two namespaces claim counts for neither, as an endpoint and as a caller.
        assert caller(proxy, addresses["victim"]) == f"{VICTIM}/victim"
        claimed = slice_of("spy", addresses["victim"], 8080)
        world.apply(claimed)
        proxy.refused(f"victim.{VICTIM}", "/", 503, "no_ready_endpoint", seconds=20)
        assert caller(proxy, addresses["victim"]) is None
        # The right is given, and it goes on without a restart.
        made.without = ()
        world.apply(*[Proxy.changed(made, thing) for thing in rendered_rights(world)])
        proxy.routed(f"victim.{VICTIM}", "/", "victim", 8080, seconds=60)
        assert caller(proxy, addresses["victim"]) == f"{VICTIM}/victim"
        until(lambda: proxy.metric("kagent_proxy_discovery_up", kind="pods") == 1, 20, proxy.discovery)
        world.api.delete(claimed)
