"""MCP sessions of real SDKs outlive rollouts, on real pods: every kind of server, two kinds of clients at each, an agent.

Servers and clients are those of `tests/chaos`, and so is who counts: calls and sessions have marks at the servers, and
every client says what became of each call. Here are only the cluster's side of it and what is done to the pods.
"""

import json
import pathlib
import queue
import subprocess
import sys
import threading
import time

import build
from api import until
from world import World, deployment, scenario, service

from proxy import NAME
from proxy import SPACE as HOME

SPACE = "sdks"
KINDS = ["python_1", "python_2", "ts", "go_161", "go_180", "rmcp", "kmcp"]
PROXY = {"replicas": 2, "drain": {"lag": "3s", "deadline": "20s"}}
DRIVER = build.ROOT / "tests" / "chaos" / "cluster.py"
SECONDS = 150
# A pod's end is seen some time after it began.
UNSEEN_SECONDS = 0.5


class Clients:
    """The clients' process, told of what happens to pods as it is seen."""

    def __init__(self, world: World, folder: pathlib.Path) -> None:
        self.world, self.stopping = world, threading.Event()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, str(DRIVER), str(folder), SPACE], **pipes)
        self.answers: queue.Queue = queue.Queue()
        self.writing = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_) -> None:
        self.stopping.set()
        self._watching.join(10)
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def tell(self, **what: object) -> None:
        with self.writing:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()

    def ask(self, **what: object) -> dict:
        self.tell(**what)
        answer = self.answers.get(timeout=SECONDS)
        assert "fault" not in answer, answer["fault"]
        return answer

    def _read(self) -> None:
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put({"fault": "the clients' process ended"})

    def _watch(self) -> None:
        """Who is ready, as kube-proxy would follow it; and which servers end."""
        ready, ending = [], {}
        while not self.stopping.is_set():
            now = [f"{e['addresses'][0]}:8080" for e in self.world.ready_endpoints(HOME, NAME)]
            if sorted(now) != ready:
                ready = sorted(now)
                self.tell(do="ready", addresses=ready)
            pods = list(self.world.kubelet.pods.values())
            for pod in pods:
                if pod.namespace == SPACE and pod.deleted.is_set() and pod.pod_name not in ending:
                    ending[pod.pod_name] = time.time() - UNSEEN_SECONDS
                    self.ends(pod.pod_name, ending[pod.pod_name])
            alive = {pod.pod_name for pod in pods}
            for name in [name for name in ending if name not in alive]:
                self.ends(name, ending.pop(name), time.time())
            self.stopping.wait(0.1)  # between two looks

    def ends(self, pod: str, begin: float, end: float | None = None) -> None:
        [kind] = [kind for kind in KINDS if pod.startswith(f"{named(kind)}-") and pod.count("-") == kind.count("_") + 2]
        self.tell(do="ends", kind=kind, pod=pod, **{"from": begin, "to": end})


def named(kind: str) -> str:
    return kind.replace("_", "-")


def stage(world: World, folder: pathlib.Path) -> None:
    """Two pods of each kind of server, and two replicas of the proxy."""
    world.definitions()
    world.namespace(SPACE)
    world.proxy(**PROXY)
    for kind in KINDS:
        made = deployment(SPACE, named(kind), f"chaos-{kind}:8080", 2)
        [container] = made["spec"]["template"]["spec"]["containers"]
        container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        marks = folder / kind
        marks.touch()
        container["env"] = [{"name": "MARKS", "value": str(marks)}, {"name": "CHAOS_ADDRESS", "value": "0.0.0.0"}]
        made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        labels = {"kagent.dev/mcp-service": "true"}
        world.apply(made, service(SPACE, named(kind), 8080, metadata={"labels": labels}))
    for kind in KINDS:
        world.wait_ready(SPACE, named(kind), 2)
    world.wait_ready(HOME, NAME, 2)


def pods(world: World, prefix: str) -> set[str]:
    """Those that have not ended."""
    return {pod.pod_name for pod in list(world.kubelet.pods.values()) if pod.pod_name.startswith(prefix)}


def roll(world: World, space: str, *names: str) -> None:
    """Replaces every pod of these, and waits until the old ones have ended."""
    old = {name: pods(world, f"{name}-") for name in names}
    world.plane.kubectl("-n", space, "rollout", "restart", *(f"deployment/{name}" for name in names))
    for name in names:
        world.plane.kubectl("-n", space, "rollout", "status", f"deployment/{name}", "--timeout=120s")
        until(lambda n=name: not pods(world, f"{n}-") & old[n], 90, lambda: world.state(space))


@scenario
def sessions_of_every_sdk(world: World) -> None:
    """sessions: servers of every SDK and then both proxies are rolled, pods killed: no SDK's client loses anything"""
    folder = world.kubelet.folder / "sdks"
    folder.mkdir()
    stage(world, folder)
    with Clients(world, folder) as clients:
        clients.ask(do="start")
        clients.ask(do="more", calls=2)
        roll(world, SPACE, *map(named, KINDS))
        clients.ask(do="more", calls=3)
        for kind in KINDS:
            victim = world.kubelet.pod(f"{named(kind)}-")
            begin = time.time()
            victim.kill()
            clients.ends(victim.pod_name, begin, time.time())
            victim.again()
        clients.ask(do="more", calls=3)
        for kind in KINDS:
            world.wait_ready(SPACE, named(kind), 2)
        before = time.time()
        roll(world, HOME, NAME)
        for _ in range(2):  # what had moved may move once more with each
            clients.tell(do="proxies", **{"from": before, "to": time.time()})
        clients.ask(do="more", calls=3)
        found = clients.ask(do="end")
    judged(world, found)


def judged(world: World, found: dict) -> None:
    """Nothing is lost; `told` is the right answer for a call whose pod died with it."""
    lost = {}
    for kind, seen in found["kinds"].items():
        world.notes.append(
            f"  {kind} with {seen['clients']}: {seen['calls']} calls, {seen['told']} told lost; "
            f"{seen['opened']} sessions of clients, {seen['opened at the servers']} at the servers"
        )
        if seen["faults"]:
            lost[kind] = (seen["counts"], seen["faults"])
    world.notes.append(f"  kagent-adk at kmcp: {found['turns']} turns of three calls")
    assert not lost, lost
    assert not found["agent"] and found["turns"] > 3, found
    assert len(found["kinds"]) == len(KINDS) and all(seen["calls"] > 20 for seen in found["kinds"].values()), found
