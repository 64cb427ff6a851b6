"""Pods that die without a word while the proxy's endpoints say ready: what D11 allows to try again must not fail.

The same deaths are met with retries and holds switched off, to show what they are worth and that a failure would
be seen: then every call that could legally have been tried again fails. No load and no race: calls are in a pod
when it dies, or come when nobody listens.
"""

import collections
import json
import threading

from api import LOST, until
from load import legally
from world import World, ask, deployment, kagent, scenario, service

SPACE = "deaths"
# Of each method, in each pod; the retries that a second allows cover one method.
CALLS = 8
METHODS = ("GET", "POST")
OFF = {"upstream": {"retryPercent": 0, "retryPerSecond": 0}, "hold": {"max": 0, "maxPerSource": 0}}
BYO = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}


class Calls:
    """Calls of both methods at once, each on a connection of its own."""

    def __init__(self, proxy, host: str, path: str, each: int = CALLS) -> None:
        self.proxy, self.host, self.path = proxy, host, path
        self.failures: collections.Counter = collections.Counter()
        self.pods: collections.Counter = collections.Counter()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.call, args=(method,)) for method in METHODS * each]
        for thread in self.threads:
            thread.start()

    def call(self, method: str) -> None:
        try:
            status, fields, body = self.proxy.ask(self.host, self.path, method, timeout=60)
            failure = "" if status == 200 else f"{method} {status} {fields.get('x-kagent-proxy-error')}"
        except LOST as error:
            failure, body = f"{method} client saw {type(error).__name__}", {}
        with self.lock:
            if failure:
                self.failures[failure] += 1
            else:
                self.pods[body["pod"]] += 1

    def running(self) -> int:
        return sum(thread.is_alive() for thread in self.threads)

    def end(self) -> collections.Counter:
        for thread in self.threads:
            thread.join(90)
        assert not self.running(), f"{self.running()} calls of {self.path} never ended"
        return self.failures


def stage(world: World) -> None:
    world.definitions()
    for space in ("kagent", SPACE):
        world.namespace(space)


def deploy(world: World, proxy, name: str, replicas: int) -> set[str]:
    """Pods in the proxy's own zone, so that none is second choice; their names, once the proxy knows them."""
    [zone] = {e["zone"] for e in world.ready_endpoints("kagent", "kagent-proxy")}
    selector = {"topology.kubernetes.io/zone": zone}
    world.apply(deployment(SPACE, name, "backend:8080", replicas, nodeSelector=selector))
    world.apply(kagent("Agent", SPACE, name, BYO), service(SPACE, name, 8080))
    pods = {e["targetRef"]["name"] for e in world.wait_ready(SPACE, name, replicas)}
    until(lambda: known(world, proxy, name) == pods, 30, lambda: f"{pods} in {proxy.admin('/routes')}")
    return pods


def known(world: World, proxy, name: str) -> set[str]:
    """The pods that the proxy's table leads to."""
    routes = json.loads(proxy.admin("/routes")[1])["routes"]
    addresses = {e["address"] for r in routes if r["host"] == f"{name}.{SPACE}" for e in r["endpoints"]}
    pods = [p for p in list(world.kubelet.pods.values()) if p.namespace == SPACE and p.place]
    return {pod.pod_name for pod in pods if f"{pod.address}:8080" in addresses}


def deaths(world: World, proxy, name: str) -> tuple[collections.Counter, collections.Counter]:
    """The failures of calls in a pod that dies, another one being there, and of calls when nobody listens."""
    host = f"{name}.{SPACE}"
    [one] = deploy(world, proxy, name, 1)
    first = world.kubelet.pod(one)
    # Leaves as many idle connections and some more, so that what follows is sent on reused ones.
    assert not Calls(proxy, host, f"/?together={2 * CALLS + 4}", CALLS + 2).end()
    opened = connections(proxy, host)
    inside = Calls(proxy, host, f"/?hang={one}")
    until(lambda: ask(first.address, 8080)[2]["busy"] == 2 * CALLS + 1, 30, "all calls are in the first pod")
    assert connections(proxy, host) == opened, "a new connection does not count as reused"
    [two] = deploy(world, proxy, name, 2) - {one}
    second = world.kubelet.pod(two)
    with world.relay.frozen():
        first.kill()
        of_dead = inside.end()
        assert set(inside.pods) <= {two}, inside.pods
        second.kill()
        assert known(world, proxy, name) == {one, two}, proxy.admin("/routes")
        late = Calls(proxy, host, "/")
        until(lambda: waiting(proxy, host) == late.running(), 30, "every call has failed or waits")
        second.again()
        of_nobody = late.end()
        assert set(late.pods) <= {two}, late.pods
    first.again()
    world.wait_ready(SPACE, name, 2)
    return of_dead, of_nobody


def connections(proxy, host: str) -> float:
    found = proxy.metric("kagent_proxy_upstream_connections_total", route=f"{host}:8080", event="opened")
    assert found, proxy.admin("/metrics")
    return found


def waiting(proxy, host: str) -> float:
    found = proxy.metric("kagent_proxy_open_requests", route=f"{host}:8080")
    assert found is not None, proxy.admin("/metrics")
    return found


@scenario
def deaths_without_retries(world: World) -> None:
    """kubernetes: with retries and holds off, pods that are killed fail every call that could be tried again"""
    legal, _ = judged(world, "bare", "without retries and holds", **OFF)
    assert legal == 3 * CALLS, "a failure would not be seen"


@scenario
def deaths_with_retries(world: World) -> None:
    """kubernetes: by default, pods that are killed fail no call that could legally be tried again"""
    legal, others = judged(world, "usual", "by default")
    assert legal == 0
    # A POST that a pod may have done already is never sent again.
    assert others == CALLS


def judged(world: World, name: str, how: str, **options) -> tuple[int, int]:
    """How many failed that could legally be tried again, and how many others; prints both."""
    stage(world)
    of_dead, of_nobody = deaths(world, world.proxy(**options), name)
    failures = of_dead + of_nobody
    legal = sum(count for failure, count in failures.items() if legally(failure))
    others = failures.total() - legal
    world.notes.append(
        f"# {how}: of {4 * CALLS} calls {legal} failed that could legally be tried again, {others} others; "
        f"in a pod that died {dict(of_dead)}, nobody listening {dict(of_nobody)}"
    )
    return legal, others
