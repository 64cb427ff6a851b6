"""The API server cut off, frozen, killed and compacted; pods that come late and go early."""

import http.client
import json
import threading
import time

import crds
from api import LOST, ApiError, until
from world import World, ask, deployment, kagent, scenario, service

from proxy import PORT

BYO = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
SPACE = "faults"
WATCHED = [
    "services", "namespaces", "endpointslices", "pods", "agents", "sandboxagents", "remotemcpservers", "mcpservers",
    "agents.api.kagent.dev", "agenttemplates.api.kagent.dev", "remotemcpservers.api.kagent.dev",
]  # fmt: skip
# The longest silence of the API server that the proxy bears is 75 s (READ in src/discovery/watch.rs).
NOTICED = 75 + 10


def stage(world: World, name: str, replicas: int = 2, image: str = "backend:8080", **spec) -> None:
    """An agent with pods."""
    world.definitions()
    world.apply(*crds.of_1_0())
    world.namespace("kagent")
    world.namespace(SPACE)
    world.apply(
        kagent("Agent", SPACE, name, BYO),
        deployment(SPACE, name, image, replicas, **spec),
        service(SPACE, name, 8080),
    )
    world.wait_ready(SPACE, name, replicas)


def newcomer(world: World, name: str, of: str) -> None:
    """A Service and its Agent that nobody knew before, on the pods of another one."""
    world.apply(kagent("Agent", SPACE, name, BYO), service(SPACE, name, 8080, app=of))


@scenario
def watch_cut(world: World) -> None:
    """kubernetes: watches that are cut are resumed, and what changed meanwhile is caught up"""
    stage(world, "cut")
    proxy = world.proxy()
    proxy.routed(f"cut.{SPACE}", "/", "cut", 8080)
    for turn in range(3):
        assert world.relay.cut() > 0
        newcomer(world, f"after-cut-{turn}", "cut")
        proxy.routed(f"after-cut-{turn}.{SPACE}", "/", "cut", 8080, seconds=60)
    with world.relay.refused():
        newcomer(world, "while-refused", "cut")
        # Known hosts are served from the last table.
        for _ in range(10):
            proxy.routed(f"cut.{SPACE}", "/", "cut", 8080)
        until(lambda: proxy.metric("kagent_proxy_discovery_errors_total"), 60, proxy.discovery)
        until(lambda: proxy.metric("kagent_proxy_discovery_up", kind="services") == 0, 60, proxy.discovery)
        assert proxy.admin("/readyz")[0] == 200, "an outage of the API server is no reason to lose readiness"
    proxy.routed(f"while-refused.{SPACE}", "/", "cut", 8080, seconds=60)
    until(lambda: proxy.metric("kagent_proxy_discovery_up", kind="services") == 1, 60, proxy.discovery)


@scenario
def server_hangs(world: World) -> None:
    """kubernetes: an API server that hangs without closing is noticed in time, and what it hid is caught up after it"""
    stage(world, "hung")
    proxy = world.proxy()
    proxy.routed(f"hung.{SPACE}", "/", "hung", 8080)
    until(lambda: down(proxy) == [], 30, proxy.discovery)
    errors = proxy.metric("kagent_proxy_discovery_errors_total") or 0

    with world.relay.frozen():
        newcomer(world, "hidden-briefly", "hung")
        # Held for a while and then refused: nothing of it got through.
        proxy.refused(f"hidden-briefly.{SPACE}", "/", 503, "unknown_target", method="POST", body=b"{}")
    # The same connections go on, so a short hang is no error.
    proxy.routed(f"hidden-briefly.{SPACE}", "/", "hung", 8080)
    assert (proxy.metric("kagent_proxy_discovery_errors_total") or 0) == errors, proxy.discovery()

    calls = 0

    def serves() -> bool:
        nonlocal calls
        calls += 1
        try:
            status, fields, body = proxy.ask(f"hung.{SPACE}", "/", "POST", body=b"{}")
        except LOST as error:
            raise AssertionError(f"call {calls} while the API server hangs: {error}") from error
        assert status == 200, (calls, status, fields, body)
        return True

    with world.relay.frozen():
        began = time.monotonic()
        newcomer(world, "hidden-first", "hung")
        until(lambda: serves() and down(proxy) == WATCHED, NOTICED, proxy.discovery)
        noticed = time.monotonic() - began
        assert (proxy.metric("kagent_proxy_discovery_errors_total") or 0) >= errors + len(WATCHED), proxy.discovery()
        newcomer(world, "hidden-last", "hung")
        # It dials again and gets no answer, which is no empty list.
        tried = world.relay.accepted
        until(lambda: serves() and world.relay.accepted > tried, 30, "the proxy dials the API server again")
        assert down(proxy) == WATCHED, proxy.discovery()
        assert proxy.admin("/readyz")[0] == 200, "a hanging API server is no reason to lose readiness"
        proxy.refused(f"hidden-last.{SPACE}", "/", 503, "unknown_target", method="POST", body=b"{}")
    began = time.monotonic()
    for name in ("hidden-first", "hidden-last"):
        proxy.routed(f"{name}.{SPACE}", "/", "hung", 8080, seconds=30)
    caught_up = time.monotonic() - began
    until(lambda: serves() and down(proxy) == [], 30, proxy.discovery)
    world.notes.append(
        f"# noticed after {noticed:.0f} s, caught up {caught_up:.1f} s after it, {calls} calls meanwhile all answered"
    )


def down(proxy) -> list[str]:
    """The kinds whose watches do not work, by the metrics."""
    return [kind for kind in WATCHED if proxy.metric("kagent_proxy_discovery_up", kind=kind) == 0]


@scenario
def server_killed(world: World) -> None:
    """kubernetes: while the API server is down requests go on by the last table, and after it all is caught up"""
    stage(world, "killed")
    proxy = world.proxy()
    proxy.routed(f"killed.{SPACE}", "/", "killed", 8080)

    def meanwhile() -> None:
        for _ in range(20):
            status, _, body = proxy.ask(f"killed.{SPACE}", "/", "POST", body=b"{}")
            assert status == 200, body

    world.plane.restart_server(meanwhile)
    world.plane.kubectl("-n", SPACE, "rollout", "restart", "deployment/killed")
    world.plane.kubectl("-n", SPACE, "rollout", "status", "deployment/killed", "--timeout=90s")
    newcomer(world, "after-kill", "killed")
    # Whoever writes the slices catches up too, so that those of the old pods may be there for a moment.
    names = {p["metadata"]["name"] for p in world.api.list("v1", "Pod", SPACE, "app=killed")
             if "deletionTimestamp" not in p["metadata"]}  # fmt: skip
    assert len(names) == 2, names
    for host in ("after-kill", "killed"):
        until(
            lambda h=host: proxy.routed(f"{h}.{SPACE}", "/", "killed", 8080, seconds=60)["pod"] in names,
            60,
            lambda h=host: f"{h} is answered by one of {names}; {proxy.explain(f'{h}.{SPACE}', '/')}",
        )


@scenario
def version_is_gone(world: World) -> None:
    """kubernetes: a watch whose version is compacted away (410) lists anew and catches up"""
    stage(world, "gone")
    proxy = world.proxy()
    proxy.routed(f"gone.{SPACE}", "/", "gone", 8080)
    path = "/api/v1/services"
    old = world.api.request("GET", path)["metadata"]["resourceVersion"]
    with world.relay.refused():
        for turn in range(20):
            newcomer(world, f"unseen-{turn}", "gone")
        world.api.delete(service(SPACE, "unseen-0", 8080))
        world.plane.compact()
        # The new server's cache begins after the old version, as after a long outage.
        world.plane.restart_server()
        until(lambda: expired(world, path, old), 60, "the old version is expired")
    proxy.routed(f"unseen-19.{SPACE}", "/", "gone", 8080, seconds=60)
    proxy.routed(f"unseen-7.{SPACE}", "/", "gone", 8080, seconds=60)
    # What was deleted while nobody looked is gone too: the Agent is there, its Service is not.
    status, headers, body = proxy.ask(f"unseen-0.{SPACE}", "/", "POST", body=b"{}")
    assert status == 503, (headers, body)


def expired(world: World, path: str, version: str) -> bool:
    try:
        for kind, thing in world.api.watch(path, version, threading.Event()):
            return kind == "ERROR" and thing.get("code") == 410
    except ApiError as error:
        return error.code == 410
    return False


@scenario
def card_is_held(world: World) -> None:
    """kubernetes: a card request for an agent without a ready pod waits for it, others are told to come again"""
    stage(world, "held", 1)
    proxy = world.proxy()
    proxy.routed(f"held.{SPACE}", "/", "held", 8080)
    world.plane.kubectl("-n", SPACE, "scale", "deployment/held", "--replicas=0")
    until(lambda: not world.endpoints(SPACE, "held"), 60, "no endpoints")
    text = proxy.refused(f"held.{SPACE}", "/", 503, "no_ready_endpoint", method="POST", body=b"{}")
    status, headers, _ = proxy.ask(f"held.{SPACE}", "/", "POST", body=b"{}")
    assert headers.get("retry-after"), (headers, text)
    got: list = []
    client = threading.Thread(
        target=lambda: got.append(proxy.ask(f"held.{SPACE}", "/.well-known/agent-card.json", timeout=60))
    )
    client.start()
    until(lambda: proxy.metric("kagent_proxy_open_requests"), 10, "the request waits")
    assert not got
    world.plane.kubectl("-n", SPACE, "scale", "deployment/held", "--replicas=1")
    client.join(60)
    assert got and got[0][0] == 200, got


@scenario
def unknown_is_held(world: World) -> None:
    """kubernetes: a request for an agent that is made this moment is answered by it"""
    stage(world, "base")
    proxy = world.proxy()
    for turn in range(5):
        got: list = []
        host = f"instant-{turn}.{SPACE}"
        client = threading.Thread(target=lambda h=host, g=got: g.append(proxy.ask(h, "/", "POST", body=b"{}")))
        client.start()
        newcomer(world, f"instant-{turn}", "base")
        client.join(60)
        assert got and got[0][0] == 200, got


@scenario
def terminating(world: World) -> None:
    """kubernetes: a terminating pod gets no new work, and its running stream goes on"""
    stage(world, "leaving", 2, terminationGracePeriodSeconds=60)
    proxy = world.proxy()
    proxy.routed(f"leaving.{SPACE}", "/", "leaving", 8080)
    stream = http.client.HTTPConnection(proxy.address, PORT, timeout=30)
    stream.request("GET", "/linger/stream", headers={"x-kagent-host": f"leaving.{SPACE}"})
    answer = stream.getresponse()
    first = json.loads(answer.readline()[5:])
    pod = world.kubelet.pod(first["pod"])
    world.api.delete(pod.reference())

    def state() -> dict | None:
        found = [e for e in world.endpoints(SPACE, "leaving") if e["targetRef"]["name"] == pod.pod_name]
        return found[0]["conditions"] if found else None

    until(lambda: (state() or {}).get("terminating"), 30, state)
    seen: list[set] = []

    def left() -> bool:
        seen.append({proxy.routed(f"leaving.{SPACE}", "/", "leaving", 8080)["pod"] for _ in range(10)})
        return pod.pod_name not in seen[-1]

    until(left, 10, lambda: seen)
    for _ in range(3):
        assert left(), seen
    # The stream still brings events, all from the pod that leaves.
    for _ in range(6):
        line = answer.readline()
        assert not line.startswith(b"data:") or json.loads(line[5:])["pod"] == pod.pod_name, line
    assert not pod.containers[0].ended()
    stream.close()
    until(lambda: state() is None, 30, state)


@scenario
def address_comes_again(world: World) -> None:
    """kubernetes: a pod address that another agent's pod gets later leads to that agent only"""
    stage(world, "former", 1)
    proxy = world.proxy()
    proxy.routed(f"former.{SPACE}", "/", "former", 8080)
    number = world.kubelet.pod("former").place.number
    world.plane.kubectl("-n", SPACE, "scale", "deployment/former", "--replicas=0")
    until(lambda: number in world.network.free, 60, "the address is free")
    world.network.prefer(number)
    stage(world, "latter", 1)
    assert world.kubelet.pod("latter").place.number == number
    proxy.routed(f"latter.{SPACE}", "/", "latter", 8080)
    proxy.refused(f"former.{SPACE}", "/", 503, "no_ready_endpoint", method="POST", body=b"{}")
    assert ask(world.kubelet.pod("latter").address, 8080)[0] == 200
