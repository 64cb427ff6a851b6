"""The API server cut off, frozen, killed and compacted; pods that come late and go early."""

import concurrent.futures
import http.client
import json
import threading
import time

import crds
from api import LOST, ApiError, until
from newer import opted
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
    """An Agent, and a tool server of kagent 1.0, that nobody knew before, on the pods of another one."""
    tools = f"{name}-tools"
    world.apply(
        kagent("Agent", SPACE, name, BYO),
        service(SPACE, name, 8080, app=of),
        opted(tools, f"{tools}.{SPACE}", SPACE),
        service(SPACE, tools, 8080, app=of),
    )


def hosts(name: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Those of a newcomer, each with a path."""
    return (f"{name}.{SPACE}", "/"), (f"{name}-tools.{SPACE}", "/mcp")


def caught_up(proxy, name: str, of: str, seconds: float = 60) -> None:
    for host, path in hosts(name):
        proxy.routed(host, path, of, 8080, seconds=seconds)


def still_unknown(proxy, name: str) -> None:
    for host, path in hosts(name):
        proxy.refused(host, path, 503, "unknown_target", method="POST", body=b"{}")


@scenario
def watch_cut(world: World) -> None:
    """kubernetes: watches that are cut are resumed, and what changed meanwhile is caught up"""
    stage(world, "cut")
    proxy = world.proxy()
    proxy.routed(f"cut.{SPACE}", "/", "cut", 8080)
    for turn in range(3):
        assert world.relay.cut() > 0
        newcomer(world, f"after-cut-{turn}", "cut")
        caught_up(proxy, f"after-cut-{turn}", "cut")
    with world.relay.refused():
        newcomer(world, "while-refused", "cut")
        # Known hosts are served from the last table.
        for _ in range(10):
            proxy.routed(f"cut.{SPACE}", "/", "cut", 8080)
        until(lambda: proxy.metric("kagent_proxy_discovery_errors_total"), 60, proxy.discovery)
        until(lambda: proxy.metric("kagent_proxy_discovery_up", kind="services") == 0, 60, proxy.discovery)
        assert proxy.admin("/readyz")[0] == 200, "an outage of the API server is no reason to lose readiness"
    caught_up(proxy, "while-refused", "cut")
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
        still_unknown(proxy, "hidden-briefly")
    # The same connections go on, so a short hang is no error.
    caught_up(proxy, "hidden-briefly", "hung", 10)
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
        still_unknown(proxy, "hidden-last")
    began = time.monotonic()
    for name in ("hidden-first", "hidden-last"):
        caught_up(proxy, name, "hung", 30)
    later = time.monotonic() - began
    until(lambda: serves() and down(proxy) == [], 30, proxy.discovery)
    world.notes.append(
        f"# noticed after {noticed:.0f} s, caught up {later:.1f} s after it, {calls} calls meanwhile all answered"
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
    caught_up(proxy, "after-kill", "killed")
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
        for name in ("unseen-0", "unseen-0-tools"):
            world.api.delete(service(SPACE, name, 8080))
        world.plane.compact()
        # The new server's cache begins after the old version, as after a long outage.
        world.plane.restart_server()
        until(lambda: expired(world, path, old), 60, "the old version is expired")
    for turn in (19, 7):
        caught_up(proxy, f"unseen-{turn}", "gone")
    # What was deleted while nobody looked is gone too: the objects are there, their Services are not.
    for host, path in hosts("unseen-0"):
        status, headers, body = proxy.ask(host, path, "POST", body=b"{}")
        assert status == 503, (host, headers, body)


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
    """kubernetes: a request for an agent or a tool server that is made this moment is answered by it"""
    stage(world, "base")
    proxy = world.proxy()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        for turn in range(5):
            name = f"instant-{turn}"
            asked = [pool.submit(proxy.ask, *where, "POST", body=b"{}") for where in hosts(name)]
            newcomer(world, name, "base")
            for answer in asked:
                assert answer.result(60)[0] == 200, answer.result()


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
