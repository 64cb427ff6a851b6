#!/usr/bin/env python3
"""What a large cluster costs the proxy: memory, CPU of the first lists, CPU of each change.

Usage: scale.py PATH_OF_KAGENT_PROXY [SERVICES AGENTS PODS]; 10,000, 5,000 and 10,000 without numbers. Makes that
many Services with a slice of two pods each, Agents of the first ones' names, and the pods of the first ones, at a
real API server on loopback. The proxy is measured without and with the right to pods; then a thousand pods are
replaced, and a thousand change in a way that does not matter. Prints numbers and judges none. Nobody answers at the
pods' addresses, and nothing is called. Takes some minutes; not part of tests/run.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import ground

SPACE = "scale"
CHANGES = 1000
# Slices are made by hand: what controllers write would be measured too, whenever they get to it.
CONTROLLERS = ("serviceaccount-controller",)


def service(number: int) -> dict:
    meta = {"name": f"agent-{number}", "namespace": SPACE}
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    # Headless, so that the server need not give out ten thousand addresses; nothing is dialled.
    spec = {"clusterIP": "None", "ports": ports, "selector": {"app": f"agent-{number}"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def address(number: int, which: int) -> str:
    return f"10.{100 + which}.{number // 250}.{1 + number % 250}"


def pod(number: int, which: int, generation: int = 0) -> dict:
    """One of the size of a real one: labels, variables and a sidecar."""
    name = f"agent-{number}"
    labels = {"app": name, "pod-template-hash": "5d4f8c7b9d"}
    labels |= {f"app.kubernetes.io/{key}": name for key in ("name", "instance", "part-of", "managed-by")}
    env = [{"name": f"VARIABLE_{n}", "value": f"a value of variable {n}"} for n in range(20)]
    containers = [{"name": part, "image": f"registry.local/{part}:v1.2.3", "env": env} for part in ("main", "sidecar")]
    spec = {"nodeName": "node", "automountServiceAccountToken": False, "containers": containers}
    meta = {"name": f"{name}-{which}-{generation}", "namespace": SPACE, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def running(number: int, which: int) -> dict:
    ip = address(number, which)
    ready = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")]
    return {"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": ready}}


def endpoints(number: int, uids: dict) -> dict:
    name = f"agent-{number}"
    pods = [
        {
            "addresses": [address(number, which)],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {
                "kind": "Pod", "namespace": SPACE, "name": f"{name}-{which}",
                "uid": uids.get((number, which), f"{number}-{which}"),
            },
            "nodeName": "node",
            "zone": "east",
        }
        for which in (0, 1)
    ]  # fmt: skip
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": SPACE, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": pods,
    }


def agent(number: int) -> dict:
    tools = [{"type": "Agent", "agent": {"name": f"agent-{number - 1}"}}] if number else []
    spec = {"type": "Declarative", "description": "d", "declarative": {"modelConfig": "m", "systemMessage": "s", "tools": tools}}
    meta = {"name": f"agent-{number}", "namespace": SPACE}
    return {"apiVersion": "kagent.dev/v1alpha2", "kind": "Agent", "metadata": meta, "spec": spec}


class Proxy:
    """The program, with its numbers."""

    def __init__(self, program: str, kubeconfig: pathlib.Path, admin: int) -> None:
        self.admin = admin
        self.log = tempfile.TemporaryFile()
        arguments = [program, "run", "--discovery", "--kubeconfig", str(kubeconfig)]
        arguments += ["--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{admin}", "--workers", "1"]
        self.process = subprocess.Popen(arguments, stderr=self.log)

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=30) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    def mebibytes(self) -> float:
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def cpu(self) -> float:
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> float:
        for line in self.get("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        return 0.0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=30)


RIGHTS = [
    {"apiGroups": [""], "resources": ["services", "namespaces"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["kagent.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]},
]


def without_pods(plane) -> pathlib.Path:
    """A kubeconfig of one who may see everything but pods."""
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": "limited"}, "rules": RIGHTS}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": SPACE}
    binding = {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "limited"}}
    binding |= {"roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "limited"}, "subjects": [subject]}
    for thing in (role, binding):
        plane.api.apply(thing)
    wish = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    path = plane.api.path("v1", "ServiceAccount", SPACE, "default", "token")
    file = plane.folder / "limited.kubeconfig"
    file.write_text(plane.kubeconfig_for(plane.api.request("POST", path, wish)["status"]["token"]))
    return file


def measure(program: str, services: int, agents: int, pods: int) -> None:
    import crds
    from api import until
    from plane import Plane, free_port

    with (
        Plane(controllers=CONTROLLERS) as plane,
        contextlib.ExitStack() as ends,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        for definition in crds.definitions():
            plane.api.apply(definition)
        until(lambda: plane.api.list("kagent.dev/v1alpha2", "Agent") == [], 60, "Agents can be listed")
        plane.applied({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
        uids: dict[tuple[int, int], str] = {}

        def create(thing: dict) -> dict:
            return plane.api.request("POST", plane.api.path(thing["apiVersion"], thing["kind"], SPACE), thing)

        def start(number: int, which: int, generation: int = 0) -> None:
            made = pod(number, which, generation)
            uids[number, which] = create(made)["metadata"]["uid"]
            plane.api.patch(made, running(number, which), "status")

        def ready(kubeconfig: pathlib.Path, what: str) -> Proxy:
            proxy = Proxy(program, kubeconfig, free_port())
            ends.callback(proxy.process.kill)
            began = time.monotonic()
            until(lambda: proxy.get("/readyz") == "ready\n", 120, "the proxy is ready")
            took = time.monotonic() - began
            print(f"{what}: ready after {took:.2f} s, {proxy.cpu():.2f} s of CPU, {proxy.mebibytes():.1f} MiB", flush=True)
            return proxy

        def count(proxy: Proxy, kind: str) -> float:
            return proxy.metric(f'kagent_proxy_discovery_objects{{kind="{kind}"}}')

        ready(plane.kubeconfig, "empty cluster").stop()
        began = time.monotonic()
        list(pool.map(lambda n: start(n // 2, n % 2), range(pods)))
        print(f"{pods} pods made in {time.monotonic() - began:.0f} s", flush=True)
        for made in (service, lambda n: endpoints(n, uids)):
            list(pool.map(create, map(made, range(services))))
        list(pool.map(create, map(agent, range(agents))))
        print(f"{services} Services, {agents} Agents too in {time.monotonic() - began:.0f} s", flush=True)
        ready(without_pods(plane), "without the right to pods").stop()
        proxy = ready(plane.kubeconfig, "with it")
        kinds = {kind: count(proxy, kind) for kind in ("services", "agents", "pods")}
        assert kinds == {"services": services + 1, "agents": agents, "pods": pods}, kinds

        def measured(what: str, change, kind: str) -> None:
            name = f'kagent_proxy_discovery_events_total{{kind="{kind}"}}'
            changes, seen, before = min(CHANGES, pods), proxy.metric(name), proxy.cpu()
            list(pool.map(lambda n: change(*changed(n)), range(changes)))
            count = lambda: proxy.metric(name) - seen  # noqa: E731
            until(lambda: count() >= changes, 60, lambda: f"{count():.0f} of {changes} changes of {kind} are seen")
            spent = (proxy.cpu() - before) * 1e6 / changes
            print(f"{what}: {spent:.0f} µs of CPU each, {proxy.mebibytes():.1f} MiB", flush=True)

        def changed(number: int) -> tuple[int, int]:
            """Never two pods of one Service at once: one patch would bring both, and the other one no event."""
            return number % (pods // 2), number // (pods // 2)

        def matters_not(number: int, which: int) -> None:
            message = {"type": "Ready", "status": "True", "message": f"{number}-{which}"}
            plane.api.patch(pod(number, which), {"status": {"conditions": [message]}}, "status")

        def replace(number: int, which: int) -> None:
            plane.api.delete(pod(number, which), gracePeriodSeconds=0)
            start(number, which, 1)
            plane.api.patch(endpoints(number, uids), {"endpoints": endpoints(number, uids)["endpoints"]})

        measured("a change of a pod that does not matter", matters_not, "pods")
        measured("a pod replaced, with its events", replace, "endpointslices")
        proxy.stop()


def main() -> int:
    program = str(pathlib.Path(sys.argv[1]).resolve())
    services, agents, pods = (int(text) for text in sys.argv[2:5] or ("10000", "5000", "10000"))
    import build

    try:
        build.programs(*build.PLANE)
        ground.with_yaml()
        measure(program, services, agents, pods)
    except (ground.Missing, build.Missing) as lack:
        print(f"not possible here: {lack}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
