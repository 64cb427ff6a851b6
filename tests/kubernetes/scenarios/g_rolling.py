"""Rolling restarts of an agent and of a tool server while clients call through the proxy.

KAGENT_PROXY_REPLACEMENTS says how many pods of each are replaced; rolling.py sets it. The test fails on a failed
request that could legally be retried (D11). The others and the times are printed, not judged.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

from world import World, deployment, kagent, scenario, service

from proxy import PORT

HERE = pathlib.Path(__file__).resolve().parent.parent
SPACE = "rolling"
REPLICAS = 4
THREADS = 8


@scenario
def rolling_restart(world: World) -> None:
    """kubernetes: rolling restarts under load fail no request that could legally be retried"""
    wanted = int(os.environ.get("KAGENT_PROXY_REPLACEMENTS", "24"))
    world.definitions()
    world.namespace(SPACE)
    byo = {"type": "BYO", "description": "b", "byo": {"deployment": {"image": "x"}}}
    proxy = world.proxy()
    # The proxy prefers pods of its own zone, so the others would hardly be called.
    [zone] = {e["zone"] for e in world.ready_endpoints("kagent", "kagent-proxy")}
    for name, image in (("agent", "backend:8080"), ("tool", "backend:3000")):
        made = deployment(SPACE, name, image, REPLICAS)
        # As kagent's controller writes it.
        made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        made["spec"]["template"]["spec"]["nodeSelector"] = {"topology.kubernetes.io/zone": zone}
        world.apply(made, service(SPACE, name, int(image.split(":")[1])))
    remote = {"description": "d", "protocol": "STREAMABLE_HTTP", "url": f"http://tool.{SPACE}:3000/mcp"}
    world.apply(kagent("Agent", SPACE, "agent", byo), kagent("RemoteMCPServer", SPACE, "tool", remote))
    for name in ("agent", "tool"):
        world.wait_ready(SPACE, name, REPLICAS)
    proxy.routed(f"agent.{SPACE}", "/", "agent", 8080)
    proxy.routed(f"tool.{SPACE}", "/mcp", "tool", 3000)
    before = set(world.kubelet.ready_at)
    began = time.monotonic()
    with subprocess.Popen(
        [
            sys.executable,
            "-I",
            str(HERE / "load.py"),
            proxy.address,
            str(PORT),
            str(THREADS),
            f"agent.{SPACE}=/?delay=20",
            f"tool.{SPACE}=/mcp?delay=20",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as clients:
        try:
            rounds = -(-wanted // REPLICAS)
            for turn in range(rounds):
                if turn % 25 == 0:
                    print(f"  {turn * REPLICAS} replaced", file=sys.stderr, flush=True)
                world.plane.kubectl("-n", SPACE, "rollout", "restart", "deployment/agent", "deployment/tool")
                for name in ("agent", "tool"):
                    world.plane.kubectl("-n", SPACE, "rollout", "status", f"deployment/{name}", "--timeout=120s")
            for name in ("agent", "tool"):
                world.wait_ready(SPACE, name, REPLICAS)
            output, _ = clients.communicate("", timeout=120)
        except BaseException:
            clients.kill()
            raise
    result = json.loads(output)
    ready = {name: at for name, at in world.kubelet.ready_at.items() if name not in before}
    waits = sorted(result["first"][name] - at for name, at in ready.items() if name in result["first"])
    report(world, rounds * REPLICAS, result, ready, waits, time.monotonic() - began)
    assert len(waits) >= rounds * REPLICAS, f"only {len(waits)} of {len(ready)} new pods were ever called"
    assert result["retriable"] == 0, result["failures"]


def report(world: World, replaced: int, result: dict, ready: dict, waits: list[float], took: float) -> None:
    p50, p99, worst = (waits[int((len(waits) - 1) * part)] * 1000 for part in (0.5, 0.99, 1.0)) if waits else (0, 0, 0)
    world.notes += [
        f"# {replaced} pods each of an agent and a tool server replaced in {took:.0f} s under {result['calls']} calls: "
        f"{result['retriable']} failed that could legally be retried, {result['others']} others {result['failures']}",
        f"# from pod ready to its first answered request, {len(waits)} of {len(ready)} pods: "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {worst:.0f} ms",
    ]
