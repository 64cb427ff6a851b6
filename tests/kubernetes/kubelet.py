"""A test kubelet and scheduler: pods are processes in network namespaces of their own.

It binds pending pods to the nodes it made, starts the program that an image's name stands for, probes, writes
the pod's status, and ends a deleted pod with SIGTERM, the grace period and SIGKILL. Other than a real one it
probes an unready container every 100 ms and ignores initial delays, since tests wait for it. There is no
kube-proxy: Services' own addresses lead nowhere.
"""

import collections
import datetime
import http.client
import pathlib
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import volumes
from api import LOST, Api, ApiError, patiently
from network import GATEWAY, Network, Place

NODES = {"node-a": "zone-a", "node-b": "zone-b"}
TICK = 0.1
SETUP = 60


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Kubelet:
    """All nodes at once. `images` gives for (image, pod, container) the command to run."""

    def __init__(self, api: Api, network: Network, images, port: int | None = None) -> None:
        self.api, self.network, self.images = api, network, images
        # Where pods find the API server.
        self.port = port or api.port
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kagent-proxy-kubelet-"))
        self.folder.chmod(0o755)
        self.stop_event = threading.Event()
        self.pods: dict[str, Pod] = {}
        # What the watch says of them later is old.
        self.ended: set[str] = set()
        self.bound = 0
        # When a pod was first written as ready, by pod name; seconds of time.monotonic.
        self.ready_at: dict[str, float] = {}
        self.faults: list[str] = []
        self.thread = threading.Thread(target=self.follow, daemon=True)

    def __enter__(self) -> "Kubelet":
        for name, zone in NODES.items():
            labels = {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}
            self.api.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
            ready = {"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": now()}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
            self.api.patch(node, {"status": {"conditions": [ready]}}, "status")
        self.thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop_event.set()
        for pod in list(self.pods.values()):
            pod.wake.set()
        for pod in list(self.pods.values()):
            pod.join(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def follow(self) -> None:
        """Lists and watches pods, again and again, until the run ends."""
        path = "/api/v1/pods"
        while not self.stop_event.is_set():
            try:
                listed = self.api.request("GET", path)
                alive = {pod["metadata"]["uid"] for pod in listed["items"]}
                for pod in listed["items"]:
                    self.saw(pod)
                for uid in set(self.pods) - alive:
                    self.gone(uid)
                version = listed["metadata"]["resourceVersion"]
                while not self.stop_event.is_set():
                    for kind, thing in self.api.watch(path, version, self.stop_event):
                        if kind == "ERROR":
                            raise ApiError(thing.get("code", 500), "", thing.get("message", ""))
                        version = thing["metadata"]["resourceVersion"]
                        if kind in ("ADDED", "MODIFIED"):
                            self.saw(thing)
                        elif kind == "DELETED":
                            self.gone(thing["metadata"]["uid"])
            except (ApiError, *LOST, ValueError):
                self.stop_event.wait(0.1)

    def saw(self, thing: dict) -> None:
        uid = thing["metadata"]["uid"]
        pod = self.pods.get(uid)
        if pod is None:
            if uid in self.ended or thing["status"].get("phase") in ("Failed", "Succeeded"):
                return
            pod = self.pods[uid] = Pod(self, thing)
            pod.start()
        if thing["metadata"].get("deletionTimestamp"):
            pod.delete(thing["metadata"].get("deletionGracePeriodSeconds", 30))

    def gone(self, uid: str) -> None:
        if pod := self.pods.get(uid):
            pod.delete(0)

    def node(self, pod: dict) -> str:
        wanted = pod["spec"].get("nodeSelector", {}).get("topology.kubernetes.io/zone")
        fitting = [name for name, zone in NODES.items() if wanted in (None, zone)]
        self.bound += 1
        return fitting[self.bound % len(fitting)]

    def pod(self, name: str) -> "Pod":
        """The running pod whose name begins so."""
        for pod in list(self.pods.values()):
            if pod.pod_name.startswith(name) and pod.is_ready and not pod.deleted.is_set():
                return pod
        raise KeyError(f"no ready pod {name}*: {[pod.pod_name for pod in list(self.pods.values())]}")


class Container:
    """One process, started again when it ends, with a growing pause."""

    def __init__(self, spec: dict, command: list[str], env: dict[str, str], log: pathlib.Path) -> None:
        self.spec, self.command, self.env, self.log = spec, command, env, log
        self.process: subprocess.Popen | None = None
        self.restarts, self.again_at = -1, 0.0
        self.ready, self.started = False, False
        self.probes: dict[str, collections.Counter] = {}
        self.due: dict[str, float] = {}

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.restarts += 1
        self.ready = False
        self.started = "startupProbe" not in self.spec
        self.probes = collections.defaultdict(collections.Counter)
        self.due = {}

    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def lines(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""


class Pod(threading.Thread):
    """A pod's life, on a thread of its own."""

    def __init__(self, kubelet: Kubelet, thing: dict) -> None:
        meta = thing["metadata"]
        super().__init__(daemon=True, name=meta["name"])
        self.kubelet, self.thing, self.api = kubelet, thing, kubelet.api
        self.namespace, self.pod_name, self.uid = meta["namespace"], meta["name"], meta["uid"]
        self.folder = kubelet.folder / self.uid
        self.wake, self.deleted = threading.Event(), threading.Event()
        self.grace = 0.0
        self.held = False
        self.place: Place | None = None
        self.containers: list[Container] = []
        self.is_ready, self.written, self.born = False, None, now()

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def addresses(self) -> tuple[str, str]:
        return self.place.address, self.place.address6

    def delete(self, grace: float) -> None:
        self.grace = min(self.grace, grace) if self.deleted.is_set() else grace
        self.deleted.set()
        self.wake.set()

    def run(self) -> None:
        try:
            self.live()
        except InterruptedError:
            pass
        except (ApiError, *LOST, AssertionError, KeyError, volumes.Unsupported) as error:
            self.kubelet.faults.append(f"{self.namespace}/{self.pod_name}: {type(error).__name__} {error}")
        finally:
            self.end()

    def live(self) -> None:
        if not self.thing["spec"].get("nodeName"):
            self.bind()
        self.place = self.kubelet.network.join()
        self.prepare()
        for container in self.containers:
            container.start()
        while not self.deleted.is_set():
            self.look()
            self.rest()
        end = time.monotonic() + self.grace
        for container in self.containers:
            container.process.terminate()
        while any(not c.ended() for c in self.containers) and time.monotonic() < end:
            # A real one goes on probing until the end, so a pod may be terminating and ready.
            self.look()
            self.rest()
            end = min(end, time.monotonic() + self.grace)

    def rest(self) -> None:
        self.wake.wait(TICK)
        self.wake.clear()
        if self.kubelet.stop_event.is_set():
            raise InterruptedError("the run ends")

    def patiently(self, call, also: tuple[int, ...] = ()):
        return patiently(call, self.kubelet.stop_event, also)

    def bind(self) -> None:
        node = self.kubelet.node(self.thing)
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        meta = {"name": self.pod_name, "namespace": self.namespace}
        path = self.api.path("v1", "Pod", self.namespace, self.pod_name, "binding")
        wish = {"apiVersion": "v1", "kind": "Binding", "metadata": meta, "target": target}
        try:
            self.patiently(lambda: self.api.request("POST", path, wish))
        except ApiError as error:
            if error.code != 409:
                raise
        self.thing["spec"]["nodeName"] = node

    def prepare(self) -> None:
        # What a pod mounts may come after it, as its namespace's certificate does.
        folders = self.patiently(
            lambda: volumes.write(self.api, self.thing, self.folder / "volumes", self.addresses), (404,)
        )
        spec = self.thing["spec"]
        for number, container in enumerate(spec.get("initContainers", []) + spec["containers"]):
            if "lifecycle" in container:
                raise volumes.Unsupported(f"lifecycle of {container['name']}")
            command = self.kubelet.images(container["image"], self.thing, container)
            env = volumes.environment(self.api, self.thing, container, self.addresses)
            env |= {"KUBERNETES_SERVICE_HOST": GATEWAY, "KUBERNETES_SERVICE_PORT": str(self.kubelet.port)}
            env |= {"KUBERNETES_SERVICE_PORT_HTTPS": str(self.kubelet.port)}
            made = Container(
                container, self.wrapped(container, command, folders), env, self.folder / f"{container['name']}.log"
            )
            if number < len(spec.get("initContainers", [])):
                made.start()
                code = made.process.wait(SETUP)
                assert code == 0, f"{container['name']} ended with {code}: {made.lines()}"
            else:
                self.containers.append(made)

    def wrapped(self, container: dict, command: list[str], folders: dict[str, pathlib.Path]) -> list[str]:
        """The command inside the pod's network, with its volumes mounted and as its user."""
        # `ip netns exec` gives the process mounts of its own.
        steps = ["set -e"]
        for mount in container.get("volumeMounts", []):
            source, target = folders[mount["name"]], shlex.quote(mount["mountPath"])
            if mount.get("subPath"):
                source = source / mount["subPath"]
            make = f"mkdir -p $(dirname {target}); touch {target}" if source.is_file() else f"mkdir -p {target}"
            steps += [make, f"mount --bind {shlex.quote(str(source))} {target}"]
        security = self.thing["spec"].get("securityContext", {}) | container.get("securityContext", {})
        user = []
        if "runAsUser" in security:
            group = security.get("runAsGroup", security["runAsUser"])
            user = ["setpriv", f"--reuid={security['runAsUser']}", f"--regid={group}", "--clear-groups"]
            user += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        steps.append(f"exec {shlex.join([*user, *command])}")
        return ["ip", "netns", "exec", self.place.name, "sh", "-c", "\n".join(steps)]

    def look(self) -> None:
        """Probes what is due and writes the status when it changed."""
        for container in self.containers:
            if container.ended():
                self.revive(container)
            elif not container.started:
                container.started = self.probe(container, "startupProbe", False)
            else:
                container.ready = self.probe(container, "readinessProbe", container.ready)
                if not self.probe(container, "livenessProbe", True):
                    container.process.terminate()
        self.is_ready = all(c.ready and not c.ended() for c in self.containers)
        state = [(c.ready, c.started, c.restarts, c.ended()) for c in self.containers]
        if state != self.written:
            self.write_status()
            self.written = state

    def revive(self, container: Container) -> None:
        container.ready = False
        if self.deleted.is_set() or self.held:
            return
        if not container.again_at:
            container.again_at = time.monotonic() + min(10.0, 0.2 * 2**container.restarts)
        elif time.monotonic() >= container.again_at:
            container.again_at = 0.0
            container.start()

    def kill(self) -> None:
        """Ends the processes as a crash or the kernel does, without a word to anyone; `again` starts new ones."""
        self.held = True
        for container in self.containers:
            container.process.kill()
            container.process.wait(30)

    def again(self) -> None:
        """Starts what was killed."""
        for container in self.containers:
            container.again_at = time.monotonic()
        self.held = False
        self.wake.set()

    def probe(self, container: Container, name: str, before: bool) -> bool:
        """The state of a probe after asking, if it is due. Without one a container is well."""
        spec = container.spec.get(name)
        if spec is None:
            return True
        if time.monotonic() < container.due.get(name, 0.0):
            return before
        well = self.asked(container, spec)
        count = container.probes[name]
        count[well] += 1
        count[not well] = 0
        wanted = spec.get("successThreshold", 1) if well else spec.get("failureThreshold", 3)
        state = well if count[well] >= wanted else before
        period = spec.get("periodSeconds", 10) if state else TICK
        container.due[name] = time.monotonic() + period
        return state

    def asked(self, container: Container, spec: dict) -> bool:
        timeout = spec.get("timeoutSeconds", 1)
        action = spec.get("httpGet") or spec.get("tcpSocket")
        if action is None:
            raise volumes.Unsupported(f"probe {spec}")
        port = action["port"]
        if isinstance(port, str):
            port = next(p["containerPort"] for p in container.spec["ports"] if p.get("name") == port)
        try:
            if "tcpSocket" in spec:
                socket.create_connection((self.address, port), timeout).close()
                return True
            if action.get("scheme") == "HTTPS":
                unchecked = ssl._create_unverified_context()
                connection = http.client.HTTPSConnection(self.address, port, timeout=timeout, context=unchecked)
            else:
                connection = http.client.HTTPConnection(self.address, port, timeout=timeout)
            try:
                connection.request("GET", action.get("path", "/"), headers={"User-Agent": "kube-probe/1.36"})
                return 200 <= connection.getresponse().status < 400
            finally:
                connection.close()
        except LOST:
            return False

    def write_status(self) -> None:
        if self.is_ready:
            self.kubelet.ready_at.setdefault(self.pod_name, time.monotonic())
        status = "True" if self.is_ready else "False"
        conditions = [
            {"type": kind, "status": value, "lastTransitionTime": now()}
            for kind, value in (
                ("PodScheduled", "True"),
                ("Initialized", "True"),
                ("ContainersReady", status),
                ("Ready", status),
            )
        ]
        body = {
            "phase": "Running",
            "conditions": conditions,
            "hostIP": GATEWAY,
            "hostIPs": [{"ip": GATEWAY}],
            "podIP": self.address,
            "podIPs": [{"ip": address} for address in self.addresses],
            "startTime": self.born,
            "containerStatuses": [self.container_status(c) for c in self.containers],
        }
        change = {"metadata": {"uid": self.uid}, "status": body}
        try:
            self.patiently(lambda: self.api.patch(self.reference(), change, "status"))
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def container_status(self, container: Container) -> dict:
        if container.ended():
            state = {"terminated": {"exitCode": abs(container.process.returncode), "reason": "Error"}}
        else:
            state = {"running": {"startedAt": self.born}}
        return {
            "name": container.spec["name"],
            "image": container.spec["image"],
            "imageID": container.spec["image"],
            "containerID": f"test://{self.uid}",
            "ready": container.ready,
            "started": container.started,
            "restartCount": container.restarts,
            "state": state,
        }

    def reference(self) -> dict:
        meta = {"name": self.pod_name, "namespace": self.namespace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta}

    def end(self) -> None:
        """Kills what is left and takes the pod out of the API."""
        for container in self.containers:
            if container.process is not None and not container.ended():
                container.process.send_signal(signal.SIGKILL)
        for container in self.containers:
            if container.process is not None:
                container.process.wait(30)
        if self.place is not None:
            self.place.leave()
        if self.deleted.is_set():
            try:
                self.patiently(
                    lambda: self.api.delete(self.reference(), gracePeriodSeconds=0, preconditions={"uid": self.uid})
                )
            except (ApiError, InterruptedError):
                pass
            self.kubelet.ended.add(self.uid)
            self.kubelet.pods.pop(self.uid, None)
            shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        return "\n".join(f"--- {self.pod_name}/{c.spec['name']}\n{c.lines()}" for c in self.containers)
