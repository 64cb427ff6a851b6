"""Rolling restarts of an agent and of a tool server while clients call through the proxy.

The tool server is an MCPServer, so its Deployment and Service are kmcp's: its pods have no readiness probe and
count as ready before they listen. Both are restarted as users do it, by `kubectl rollout restart`.
KAGENT_PROXY_REPLACEMENTS says how many pods of each are replaced; rolling.py sets it. The test fails on a failed
request that could legally be retried (D11), which the proxy's own link shows, and on a POST that was sent twice. The
others and the times are printed, not judged.
"""

import collections
import json
import os
import pathlib
import subprocess
import sys
import time

from api import until
from load import UNSENT
from wire import Sent, Wire
from world import World, deployment, kagent, scenario, service

from proxy import PORT

HERE = pathlib.Path(__file__).resolve().parent.parent
SPACE = "rolling"
REPLICAS = 4
THREADS = 8
RESTARTED = "kubectl.kubernetes.io/restartedAt"
# What labels the pods: ours of the agent, kmcp's of the tool server.
LABELS = {"agent": "app=agent", "tool": "app.kubernetes.io/managed-by=kmcp,app.kubernetes.io/name=tool"}


def stage(world: World):
    """An agent as kagent's controller deploys it, a tool server that kmcp deploys, and the proxy that leads to both."""
    world.definitions()
    world.namespace(SPACE)
    if "kmcp" not in world.plane.running:
        world.plane.start_kmcp()
    proxy = world.proxy()
    # The proxy prefers pods of its own zone, so the others would hardly be called.
    [zone] = {e["zone"] for e in world.ready_endpoints("kagent", "kagent-proxy")}
    selector = {"topology.kubernetes.io/zone": zone}
    made = deployment(SPACE, "agent", "backend:8080", REPLICAS, nodeSelector=selector)
    made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    byo = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
    world.apply(made, service(SPACE, "agent", 8080), kagent("Agent", SPACE, "agent", byo))
    pods = {"image": "backend:3000", "port": 3000, "cmd": "run", "replicas": REPLICAS, "nodeSelector": selector}
    tool = {"transportType": "http", "deployment": pods, "httpTransport": {"targetPort": 3000}}
    world.apply(kagent("MCPServer", SPACE, "tool", tool))
    for name in LABELS:
        world.wait_ready(SPACE, name, REPLICAS)
    until(lambda: settled(world), 60, lambda: world.plane.kubectl("-n", SPACE, "get", "mcpserver/tool", "-o", "yaml"))
    proxy.routed(f"agent.{SPACE}", "/", "agent", 8080)
    proxy.routed(f"tool.{SPACE}", "/mcp", "tool", 3000)
    return proxy


def settled(world: World) -> bool:
    """Whether kmcp has seen the tool server ready.

    Until then it writes the Deployment every ten seconds, and whole, which takes kubectl's annotation away
    and so the restart back. After that it writes when the MCPServer changes.
    """
    found = world.api.get("kagent.dev/v1alpha1", "MCPServer", SPACE, "tool")
    conditions = found.get("status", {}).get("conditions", [])
    return any((c["type"], c["status"]) == ("Ready", "True") for c in conditions)


def pods_of(world: World, name: str) -> set[str]:
    """The pods that are not ending."""
    listed = [pod["metadata"] for pod in world.api.list("v1", "Pod", SPACE, LABELS[name])]
    return {meta["name"] for meta in listed if "deletionTimestamp" not in meta}


def restart(world: World) -> None:
    """Replaces every pod of both; what it asked for has to last."""
    old = {name: pods_of(world, name) for name in LABELS}
    stamps = {name: stamp(world, name) for name in LABELS}
    world.plane.kubectl("-n", SPACE, "rollout", "restart", *(f"deployment/{name}" for name in LABELS))
    asked = {name: stamp(world, name) for name in LABELS}
    for name in LABELS:
        world.plane.kubectl("-n", SPACE, "rollout", "status", f"deployment/{name}", "--timeout=120s")
        left = old[name] & pods_of(world, name)
        assert not left, f"{left} of {name} were not replaced"
        assert stamps[name] != asked[name] == stamp(world, name), f"{name}: the restart was taken back"


def stamp(world: World, name: str) -> str | None:
    found = world.api.get("apps/v1", "Deployment", SPACE, name)["spec"]["template"]["metadata"]
    return found.get("annotations", {}).get(RESTARTED)


@scenario
def rolling_restart(world: World) -> None:
    """kubernetes: rolling restarts under load fail no request that could legally be retried"""
    wanted = int(os.environ.get("KAGENT_PROXY_REPLACEMENTS", "24"))
    proxy = stage(world)
    before = set(world.kubelet.ready_at)
    began = time.monotonic()
    targets = (f"agent.{SPACE}=/?delay=20", f"tool.{SPACE}=/mcp?delay=20")
    command = [sys.executable, "-I", str(HERE / "load.py"), proxy.address, str(PORT), str(THREADS), *targets]
    with (
        Wire(proxy.pod.place, PORT, {8080, 3000}) as wire,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as clients,
    ):
        try:
            rounds = -(-wanted // REPLICAS)
            for turn in range(rounds):
                if turn % 25 == 0:
                    print(f"  {turn * REPLICAS} replaced", file=sys.stderr, flush=True)
                restart(world)
            for name in LABELS:
                world.wait_ready(SPACE, name, REPLICAS)
            output, _ = clients.communicate("", timeout=120)
        except BaseException:
            clients.kill()
            raise
    result = json.loads(output)
    replaced = rounds * REPLICAS
    wrong = [(*call, wire.sent.get(call[0], [])) for call in result["failed"]]
    against = [call for call in wrong if legally(*call[1:])]
    kinds = collections.Counter(f"{method} {fault}" for _, method, fault in result["failed"])
    world.notes.append(
        f"# {replaced} pods each of an agent and a tool server replaced in {time.monotonic() - began:.0f} s under "
        f"{result['calls']} calls: {len(against)} failed that could legally be retried, "
        f"{len(wrong) - len(against)} others {dict(kinds)}"
    )
    for call in wrong:
        if "client saw" in call[2]:
            world.notes.append(
                f"# unclear: {call}, which {'came' if call[0] in wire.asked else 'did not come'} to the proxy"
            )
            world.notes += slow(proxy)
    for name in LABELS:
        ready = {p: at for p, at in world.kubelet.ready_at.items() if p not in before and p.startswith(f"{name}-")}
        waits = sorted(result["first"][p] - at for p, at in ready.items() if p in result["first"])
        world.notes.append(report(name, len(ready), waits))
        assert len(ready) >= replaced, f"only {len(ready)} new pods of {name} were ever ready"
        # Those of kmcp may be replaced before they listen.
        assert len(waits) >= replaced / 2, f"only {len(waits)} of {len(ready)} new pods of {name} were ever called"
    assert not against, against
    seen = min(len(wire.asked), len(wire.sent))
    assert seen >= result["calls"] * 0.99, f"of {result['calls']} calls {seen} were seen"
    world.notes.append(f"# {seen} of {result['calls']} calls were seen on the link, {wire.missed} packets missed")
    again = {call: sent for call, sent in wire.sent.items() if len(sent) > 1}
    wrongly = {call: sent for call, sent in again.items() if len(sent) > 2 or not legally(sent[0].method, "", sent[:1])}
    assert not wrongly, wrongly
    world.notes.append(
        f"# {len(again)} GET were sent once more, each on a reused connection that had closed; no POST was"
    )


def slow(proxy) -> list[str]:
    """What the proxy's log says of calls that took longer than any should."""
    lines = proxy.pod.containers[0].log.read_text().splitlines()
    calls = [json.loads(line) for line in lines if '"whole_ms"' in line]
    return [f"# slow: {call}" for call in calls if call["whole_ms"] > 5000]


def legally(method: str, fault: str, sent: list[Sent]) -> bool:
    """Whether D11 allows one more attempt of a call that failed so after these; unseen ones count against us."""
    if fault.split(" ")[-1] in UNSENT or not sent:
        return True
    first = sent[0]
    return method == "GET" and len(sent) == 1 and first.reused and first.closed


def report(name: str, ready: int, waits: list[float]) -> str:
    p50, p99, worst = (waits[int((len(waits) - 1) * part)] * 1000 for part in (0.5, 0.99, 1.0)) if waits else (0, 0, 0)
    return (
        f"# {name}: from pod ready to its first answered request, {len(waits)} of {ready} pods: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {worst:.0f} ms"
    )
