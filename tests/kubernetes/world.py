"""What a scenario is given: the plane, the kubelet, and short words for the objects it needs."""

import http.client
import json
import pathlib
import sys

import build
import crds
from api import Api, until
from kubelet import Kubelet, Pod
from network import Network
from plane import Plane
from relay import Relay

HERE = pathlib.Path(__file__).resolve().parent
SCENARIOS: list = []


def scenario(test):
    """Registers a scenario; its docstring's first line is its name."""
    SCENARIOS.append(test)
    return test


class World:
    """One run's control plane, network and pods."""

    def __init__(self, program: str, plane: Plane, kubelet: Kubelet, network: Network, relay: Relay) -> None:
        self.program, self.plane, self.kubelet, self.network, self.relay = program, plane, kubelet, network, relay
        self.api: Api = plane.api
        self.notes: list[str] = []
        self.defined: str | None = None
        self.kept = None
        self.kept_options: dict = {}

    def namespace(self, name: str) -> str:
        self.plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    def apply(self, *things: dict) -> list[dict]:
        return self.plane.apply(*things)

    def definitions(self, version: str = crds.DEFAULT) -> None:
        """Applies the custom resource definitions, unless they are there."""
        if self.defined != version:
            self.apply(*crds.definitions(version))
            self.defined = version

    def proxy(self, **options):
        """The running proxy with these options; one scenario after another may use it."""
        from proxy import Proxy

        if self.kept is None or self.kept_options != options:
            self.end_proxy()
            self.kept, self.kept_options = Proxy(self, **options), options
            self.kept.__enter__()
        return self.kept

    def end_proxy(self) -> None:
        if self.kept is not None:
            kept, self.kept = self.kept, None
            kept.__exit__()

    def ready_endpoints(self, namespace: str, service: str) -> list[dict]:
        return [e for e in self.endpoints(namespace, service) if e["conditions"].get("ready")]

    def endpoints(self, namespace: str, service: str) -> list[dict]:
        label = f"kubernetes.io/service-name={service}"
        slices = self.api.list("discovery.k8s.io/v1", "EndpointSlice", namespace, label)
        return [endpoint for piece in slices for endpoint in piece.get("endpoints") or []]

    def wait_ready(self, namespace: str, service: str, count: int = 1, seconds: float = 60) -> list[dict]:
        """The ready endpoints, once they are of `count` pods; a pod has one for each family of the Service."""

        def there() -> list[dict] | None:
            found = self.ready_endpoints(namespace, service)
            return found if len({e["targetRef"]["name"] for e in found}) == count else None

        return until(
            there,
            seconds,
            lambda: f"{count} ready endpoints of {service}.{namespace}; {self.state(namespace)}",
        )

    def state(self, namespace: str) -> str:
        pods = [p for p in list(self.kubelet.pods.values()) if p.namespace == namespace]
        events = [e["message"] for e in self.api.list("v1", "Event", namespace) if e["type"] != "Normal"]
        lines = [*self.kubelet.faults[-3:], *events[-5:], *(pod.logs() for pod in pods)]
        return "\n".join(lines)


def images(program: str):
    """The programs that images stand for; `backend:8080-9090` listens on these ports."""

    def command(image: str, pod: dict, container: dict) -> list[str]:
        name, _, tag = image.partition(":")
        if name == "backend":
            args = container.get("args", [])
            flags = args if {"--tls", "--card-url"} & set(args) else []
            return [sys.executable, "-I", str(HERE / "backend.py"), *tag.split("-"), *flags]
        if name == "kagent-proxy":
            return [program, *container.get("args", [])]
        if name == "mcp-server":
            return [build.python("mcp-1"), "-I", str(HERE / "mcp_server.py"), tag]
        if name == "mcp-server-2":
            return [build.python("mcp-2"), "-I", str(HERE / "mcp_server_2.py"), tag]
        if name.startswith("ledger-"):
            env = {entry["name"]: entry["value"] for entry in container["env"]}
            return build.ledger(name.removeprefix("ledger-"), tag, env["BOOK"])
        if name.startswith("chaos-"):
            env = {entry["name"]: entry["value"] for entry in container["env"]}
            return build.chaos_server(name.removeprefix("chaos-"), tag, pod["metadata"]["name"], env["MARKS"])
        # kmcp has its adapter copied by an init container.
        if name.endswith("/agentgateway"):
            return ["true"]
        raise KeyError(f"no program stands for the image {image}")

    return command


def deployment(namespace: str, name: str, image: str, replicas: int = 1, **spec) -> dict:
    labels = {"app": name}
    port = image.partition(":")[2].split("-")[0]
    probe = {"httpGet": {"path": "/healthz", "port": int(port)}, "periodSeconds": 1}
    container = {"name": "main", "image": image, "readinessProbe": probe}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 5, **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service(namespace: str, name: str, *ports: dict | int, app: str | None = None, **more) -> dict:
    """A Service; a plain number is the only port, called http."""
    listed = [{"name": "http", "port": port} if isinstance(port, int) else port for port in ports]
    meta = {"name": name, "namespace": namespace, **more.pop("metadata", {})}
    spec = {"selector": {"app": app or name}, "ports": listed, **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def kagent(kind: str, namespace: str, name: str, spec: dict) -> dict:
    version = "v1alpha1" if kind == "MCPServer" else "v1alpha2"
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": f"kagent.dev/{version}", "kind": kind, "metadata": meta, "spec": spec}


def ask(
    address: str, port: int, path: str = "/", method: str = "GET", body: bytes | None = None,
    pod: Pod | None = None, timeout: float = 30, **headers: str,
) -> tuple[int, dict, dict]:  # fmt: skip
    """Status, headers and parsed body of one request on a fresh connection, from `pod` if one is given."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        if pod is not None:
            connection.sock = pod.place.socket((address, port), timeout)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, fields)
        answer = connection.getresponse()
        text = answer.read()
        names = {name.lower(): value for name, value in answer.getheaders()}
        try:
            return answer.status, names, json.loads(text)
        except ValueError:
            return answer.status, names, {"text": text.decode(errors="replace")}
    finally:
        connection.close()
