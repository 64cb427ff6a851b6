"""A sidecar in front of the cluster's own proxy, written as `deploy/README.md` writes it: the second one discovers.

The sidecar listens on loopback of its pod, and callers are in that pod. Knows no kagent 0.x.
"""

import concurrent.futures
import re

import build
import crds
import yaml
from api import until
from newer import opted
from world import World, ask, deployment, scenario, service

from proxy import SPACE as HOME

SPACE = "beside"
PORT = 8090


def written() -> str:
    """The file that the guide gives to a sidecar."""
    guide = (build.ROOT / "deploy" / "README.md").read_text()
    [text] = re.findall(r"a sidecar needs a file:\n\n```yaml\n(.*?)```", guide, re.DOTALL)
    config = yaml.safe_load(text)
    assert config["listeners"][0]["address"] == f"127.0.0.1:{PORT}", text
    assert config["defaultRoutes"][0]["targets"] == [f"http://kagent-proxy.{HOME}:8080"], text
    return text


def sidecar(world: World, address: str):
    """The pod that has it. There is no DNS here, so its hosts file names the cluster's proxy."""
    files = {"config.yaml": written(), "hosts": f"{address} kagent-proxy.{HOME}\n"}
    meta = {"name": "sidecar", "namespace": SPACE}
    made = deployment(SPACE, "agent", "kagent-proxy:8080")
    [container] = made["spec"]["template"]["spec"]["containers"]
    del container["readinessProbe"]
    container |= {
        "args": ["run", "--config", "/etc/kagent-proxy/config.yaml"],
        "volumeMounts": [
            {"name": "files", "mountPath": "/etc/kagent-proxy/config.yaml", "subPath": "config.yaml"},
            {"name": "files", "mountPath": "/etc/hosts", "subPath": "hosts"},
        ],
    }
    made["spec"]["template"]["spec"]["volumes"] = [{"name": "files", "configMap": {"name": "sidecar"}}]
    world.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": files}, made)
    return until(lambda: listening(world), 60, lambda: world.state(SPACE))


def listening(world: World):
    """The pod, once it answers there."""
    for pod in list(world.kubelet.pods.values()):
        if (pod.namespace, pod.is_ready) == (SPACE, True) and pod.pod_name.startswith("agent-"):
            if ask("127.0.0.1", 9090, "/readyz", pod=pod)[0] == 200:
                return pod
    return None


@scenario
def passes_to_discovery(world: World) -> None:
    """sidecar: before a proxy that discovers, calls are routed, refusals pass unchanged, a late Service is held for"""
    for space in (HOME, SPACE):
        world.namespace(space)
    world.apply(*crds.of_1_0())
    world.apply(
        deployment(SPACE, "echo", "backend:8084-8085"),
        service(SPACE, "tools", 8084, app="echo"),
        opted("tools", f"tools.{SPACE}", SPACE),
        service(SPACE, "closed", 8084, app="echo"),
    )
    world.wait_ready(SPACE, "tools")
    proxy = world.proxy()
    proxy.routed(f"tools.{SPACE}", "/mcp", "echo", 8084)
    pod = sidecar(world, proxy.address)

    def call(host: str, path: str = "/mcp", **more) -> tuple[int, dict, dict]:
        return ask("127.0.0.1", PORT, path, "POST", b"{}", pod, x_kagent_host=host, **more)

    status, _, saw = call(f"tools.{SPACE}")
    assert (status, saw.get("port"), saw.get("path")) == (200, 8084, "/mcp"), (status, saw, pod.logs())
    names = [name.lower() for name, _ in saw["headers"]]
    assert names.count("via") == 2 and "x-kagent-host" not in names, saw

    # The Service came a while ago, so that nobody waits for its mark.
    proxy.refused(f"closed.{SPACE}", "/mcp", 403, "forbidden_target", method="POST", body=b"{}")
    for host, status in ((f"closed.{SPACE}", 403), (f"tools.{SPACE}:9", 400), (f"zzzzzzzz.{SPACE}", 503)):
        passed, direct = call(host), proxy.ask(host, "/mcp", "POST", body=b"{}")
        assert passed[0] == direct[0] == status and passed[2] == direct[2], (host, passed, direct)
        for name in ("x-kagent-proxy-error", "content-type", "retry-after"):
            assert passed[1].get(name) == direct[1].get(name), (host, name, passed, direct)
        assert passed[1]["x-kagent-proxy-error"], (host, passed)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, f"late.{SPACE}")
        until(lambda: proxy.metric("kagent_proxy_held_requests") == 1, 10, pod.logs)
        assert not waiting.done(), waiting.result()
        world.apply(service(SPACE, "late", 8085, app="echo"), opted("late", f"late.{SPACE}", SPACE))
        status, _, saw = waiting.result(60)
        assert (status, saw.get("port")) == (200, 8085), (status, saw, pod.logs())
