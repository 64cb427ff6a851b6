#!/usr/bin/env python3
"""What a large cluster costs the proxy: memory, CPU of the first lists, CPU of each change.

Usage: scale.py PATH_OF_KAGENT_PROXY [SERVICES AGENTS]; 10,000 and 5,000 without numbers. Makes that many
Services with a slice of two pods each, and Agents of the first ones' names, at a real API server on loopback;
then a thousand pods are replaced. Prints numbers and judges none. Nobody answers at the pods' addresses, and
nothing is called. Takes some minutes; not part of tests/run.
"""

import concurrent.futures
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


def service(number: int) -> dict:
    meta = {"name": f"agent-{number}", "namespace": SPACE}
    ports = [{"name": "http", "port": 8080, "targetPort": 8080}]
    # Headless, so that the server need not give out ten thousand addresses; nothing is dialled.
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"clusterIP": "None", "ports": ports}}


def endpoints(number: int, generation: int) -> dict:
    name = f"agent-{number}"
    pods = [
        {
            "addresses": [f"10.{100 + pod}.{number // 250}.{1 + number % 250}"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": SPACE, "name": f"{name}-{pod}", "uid": f"{number}-{pod}-{generation}"},
            "nodeName": "node",
            "zone": "east",
        }
        for pod in (0, 1)
    ]
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


def measure(program: str, services: int, agents: int) -> None:
    import crds
    from api import until
    from plane import Plane, free_port

    with Plane() as plane, concurrent.futures.ThreadPoolExecutor(8) as pool:
        for definition in crds.definitions():
            plane.api.apply(definition)
        until(lambda: plane.api.list("kagent.dev/v1alpha2", "Agent") == [], 60, "Agents can be listed")
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
        plane.api.apply(space)
        empty = Proxy(program, plane.kubeconfig, free_port())
        until(lambda: empty.get("/readyz") == "ready\n", 60, "the proxy is ready")
        print(f"empty cluster: {empty.mebibytes():.1f} MiB, {empty.cpu():.2f} s of CPU", flush=True)
        empty.stop()

        def create(thing: dict) -> None:
            plane.api.request("POST", plane.api.path(thing["apiVersion"], thing["kind"], SPACE), thing)

        began = time.monotonic()
        for made in (service, lambda n: endpoints(n, 0)):
            list(pool.map(create, map(made, range(services))))
        list(pool.map(create, map(agent, range(agents))))
        print(f"{services} Services, {agents} Agents made in {time.monotonic() - began:.0f} s", flush=True)
        proxy = Proxy(program, plane.kubeconfig, free_port())
        began = time.monotonic()
        until(lambda: proxy.get("/readyz") == "ready\n", 120, "the proxy is ready")
        took, cpu = time.monotonic() - began, proxy.cpu()
        kinds = {kind: proxy.metric(f'kagent_proxy_discovery_objects{{kind="{kind}"}}') for kind in ("services", "agents")}
        assert kinds == {"services": services + 1, "agents": agents}, kinds
        print(f"ready after {took:.2f} s, {cpu:.2f} s of CPU, {proxy.mebibytes():.1f} MiB", flush=True)
        name = 'kagent_proxy_discovery_events_total{kind="endpointslices"}'
        seen, before = proxy.metric(name), proxy.cpu()

        def change(number: int) -> None:
            thing = endpoints(number % services, 1 + number // services)
            plane.api.patch(thing, {"endpoints": thing["endpoints"]})

        list(pool.map(change, range(CHANGES)))
        until(lambda: proxy.metric(name) >= seen + CHANGES, 60, "every change is seen")
        spent = (proxy.cpu() - before) * 1e6 / CHANGES
        print(f"{CHANGES} pods replaced: {spent:.0f} µs of CPU each with its watch event, {proxy.mebibytes():.1f} MiB", flush=True)
        proxy.stop()


def main() -> int:
    program = str(pathlib.Path(sys.argv[1]).resolve())
    services, agents = (int(text) for text in sys.argv[2:4] or ("10000", "5000"))
    import build

    try:
        build.programs(*build.PLANE)
        ground.with_yaml()
        measure(program, services, agents)
    except (ground.Missing, build.Missing) as lack:
        print(f"not possible here: {lack}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
