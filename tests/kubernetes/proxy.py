"""kagent-proxy as a pod, from the manifests of `deploy/`, and what a client asks of it.

Objects are what `kubectl kustomize` renders, so ServiceAccount, RBAC, user and configuration are the ones that
users get; a scenario may add keys to the configuration. Knows nothing of what is routed.
"""

import base64
import json
import os
import re
import time

import build
import yaml
from api import LOST, until
from world import World, ask

SPACE = "kagent"
NAME = "kagent-proxy"
PORT = 8080


def rendered(world: World, folder: str) -> list[dict]:
    text = world.plane.kubectl("kustomize", str(build.ROOT / "deploy" / folder))
    return [document for document in yaml.safe_load_all(text) if document]


def key() -> dict:
    """The Secret that the guide tells users to make."""
    meta = {"name": f"{NAME}-sessions", "namespace": SPACE}
    made = base64.b64encode(os.urandom(32)).decode()
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"key": made}}


class Proxy:
    """One deployment of the proxy; `with` it, or let `World` keep it."""

    def __init__(
        self, world: World, folder: str = "kubernetes", replicas: int = 1, ready: bool = True, **config
    ) -> None:
        self.world, self.folder, self.replicas, self.wanted_ready = world, folder, replicas, ready
        self.config = config
        self.objects: list[dict] = []

    def __enter__(self) -> "Proxy":
        self.world.namespace(SPACE)
        self.objects = [key(), *(self.changed(thing) for thing in rendered(self.world, self.folder))]
        self.world.apply(*self.objects)
        if self.wanted_ready:
            self.wait_ready()
        return self

    def changed(self, thing: dict) -> dict:
        if thing["kind"] == "Deployment":
            thing["spec"]["replicas"] = self.replicas
        if thing["kind"] == "ConfigMap":
            config = yaml.safe_load(thing["data"]["config.yaml"])
            for key, value in self.config.items():
                config[key] = config.get(key, {}) | value if isinstance(value, dict) else value
            thing["data"]["config.yaml"] = yaml.safe_dump(config, sort_keys=False)
        return thing

    def wait_ready(self, seconds: float = 30) -> None:
        self.world.wait_ready(SPACE, NAME, self.replicas, seconds)

    def __exit__(self, *_) -> None:
        api = self.world.api
        for thing in reversed(self.objects):
            if thing["kind"] != "Namespace":
                api.delete(thing, propagationPolicy="Background")
        label = f"app.kubernetes.io/name={NAME}"

        def ended() -> bool:
            for pod in api.list("v1", "Pod", SPACE, label):
                api.delete({"apiVersion": "v1", "kind": "Pod", **pod}, gracePeriodSeconds=0)
            return not any(pod.pod_name.startswith(NAME) for pod in list(self.world.kubelet.pods.values()))

        until(ended, 30, "the proxy's pods ended")

    @property
    def pod(self):
        return self.world.kubelet.pod(NAME)

    @property
    def address(self) -> str:
        return self.pod.address

    def ask(
        self, host: str | None, path: str = "/", method: str = "GET", caller=None, **more
    ) -> tuple[int, dict, dict]:
        """One request of a client, with the header that kagent writes; from the pod `caller` if one is given."""
        fields = {} if host is None else {"x-kagent-host": host}
        return ask(self.address, PORT, path, method, pod=caller, **fields, **more)

    def routed(self, host: str, path: str, app: str, port: int, seconds: float = 10, **more) -> dict:
        """What the backend saw, once the request gets to a pod of `app` on `port`."""
        last: list = []

        def there() -> dict | None:
            last[:] = self.ask(host, path, **more)
            body = last[2]
            body = body.get("saw", body)
            good = last[0] == 200 and body.get("pod", "").startswith(f"{app}-") and body.get("port") == port
            return body if good else None

        return until(there, seconds, lambda: f"{host} {path} at {app}:{port}; last {last}; {self.explain(host, path)}")

    def refused(self, host: str | None, path: str, status: int, reason: str, seconds: float = 10, **more) -> dict:
        """The body of the refusal with this status and reason."""
        last: list = []

        def so() -> dict | None:
            last[:] = self.ask(host, path, **more)
            return last[2] if (last[0], last[1].get("x-kagent-proxy-error")) == (status, reason) else None

        return until(so, seconds, lambda: f"{host} {path} refused with {status} {reason}; last {last}")

    def admin(self, path: str) -> tuple[int, str]:
        """What the admin socket says to a peer on loopback."""
        pod = self.pod
        status, _, body = ask("127.0.0.1", 9091, path, pod=pod)
        return status, body["text"] if set(body) == {"text"} else json.dumps(body)

    def explain(self, host: str, path: str) -> str:
        try:
            return self.admin(f"/explain?host={host}&path={path}")[1]
        except (KeyError, *LOST) as error:
            return str(error)

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's samples that carry these labels; None without a sample."""
        found = None
        for line in self.admin("/metrics")[1].splitlines():
            match = re.fullmatch(rf"{name}(?:{{(.*)}})? (\S+)", line)
            if match and all(f'{key}="{value}"' in (match[1] or "") for key, value in labels.items()):
                found = (found or 0.0) + float(match[2])
        return found

    def discovery(self) -> str:
        """What the metrics say of the watches, for an error."""
        lines = self.admin("/metrics")[1].splitlines()
        return " ".join(
            line[len("kagent_proxy_discovery_") :] for line in lines if line.startswith("kagent_proxy_disc")
        )

    def log(self) -> str:
        return "\n".join(p.logs() for p in list(self.world.kubelet.pods.values()) if p.pod_name.startswith(NAME))

    def became_ready_after(self, seconds: float) -> bool:
        """Whether a pod of ours is ready within this time; for proving that it is not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.world.ready_endpoints(SPACE, NAME):
                return True
            time.sleep(0.1)
        return False
