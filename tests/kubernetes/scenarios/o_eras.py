"""Clients of MCP in automatic mode, which ask for 2026-07-28 first, before servers in pods that come, roll and end.

Such a client goes on with an older revision for as long as it lives where a server seems not to know the newest one;
here none may. Each SDK's client has a server of its own, and requests go to two replicas of the proxy in turn. The
control has a server that does not know the newest revision: there the same clients fall back.
"""

import concurrent.futures
import contextlib
import json
import threading
from collections.abc import Callable

import build
import crds
from api import until
from eras import Follower, Spread
from harness import Stage
from newer import opted
from world import World, ask, deployment, scenario, service

from proxy import NAME, PORT
from proxy import SPACE as HOME

SPACE = "eras"
MODERN, LEGACY = "2026-07-28", "2025-11-25"
PROXY = {"replicas": 2, "drain": {"lag": "1s", "deadline": "5s"}}


class Play:
    """The client of one SDK, and a server in a pod, which is not there yet."""

    def __init__(self, world: World, stage: Stage, url: str, scene: str, sdk: str, command: list[str]) -> None:
        self.world, self.url, self.name = world, url, f"{scene}-{sdk}"
        self.host = f"{self.name}.{SPACE}"
        self.gate = world.kubelet.folder / f"gate-{self.name}"
        self.client = Follower(stage, self.name, command, "auto", self.host)

    def deploy(self, replicas: int = 1, **variables: str) -> None:
        made = deployment(SPACE, self.name, "mcp-server-2:8080", replicas)
        [container] = made["spec"]["template"]["spec"]["containers"]
        variables |= {"GATE": str(self.gate)}
        container["env"] = [{"name": name, "value": value} for name, value in variables.items()]
        made["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        self.world.apply(made)

    def mark(self) -> None:
        self.world.apply(opted(self.name, self.host, SPACE))

    def serve(self, **variables: str) -> None:
        """All of it is there."""
        self.gate.touch()
        self.deploy(**variables)
        self.world.apply(service(SPACE, self.name, 8080))
        self.mark()
        self.world.wait_ready(SPACE, self.name)
        self.known()

    def known(self) -> None:
        """To both replicas."""
        for pod in replicas(self.world):

            def there(pod=pod) -> bool:
                routes = ask("127.0.0.1", 9091, "/routes", pod=pod)[2].get("routes", [])
                return any(route["host"].startswith(self.host) for route in routes)

            until(there, 30, pod.logs)

    def lines(self) -> list[dict]:
        """What the access logs of both replicas say of this client, in order."""
        found = []
        for pod in replicas(self.world):
            lines = pod.containers[0].log.read_text().splitlines(keepends=True)
            of_ours = [json.loads(line) for line in lines if f'"host":"{self.host}"' in line and line.endswith("\n")]
            found += [line | {"replica": pod.pod_name} for line in of_ours if line["target"] == "access"]
        return sorted(found, key=lambda line: line["timestamp"])

    def story(self) -> list[tuple]:
        """The last of it, and what the replicas know of each other, for an error."""
        names = ("timestamp", "replica", "status", "outcome", "rpc_method", "request_bytes", "whole_ms")
        told = [tuple(line.get(name) for name in names) for line in self.lines()[-30:]]
        return told + [(pod.pod_name, line) for pod in replicas(self.world) for line in peers(pod)]

    def refusals(self) -> int:
        """How many of this client's requests the proxy has held and then refused."""
        return sum(line["status"] == 503 and line["whole_ms"] > 1000 for line in self.lines())

    def refused(self) -> None:
        """Its first question is, once more from now on. If what it sends next were held too, that would be every other
        one; so an odd number says that it was the question."""
        before = self.refusals()

        def once_more() -> bool:
            now = self.refusals()
            return now > before and now % 2 == 1

        until(once_more, 30, lambda: (before, self.refusals(), self.story()))

    def unready(self) -> None:
        """A pod runs and says that it is not ready."""

        def up() -> bool:
            pods = [pod for pod in self.pods() if pod.place and not pod.deleted.is_set()]
            return bool(pods) and ask(pods[0].address, 8080, "/healthz")[0] == 503

        until(up, 60, lambda: self.world.state(SPACE))

    def pods(self) -> list:
        return [pod for pod in list(self.world.kubelet.pods.values()) if pod.pod_name.startswith(f"{self.name}-")]

    def speaks(self, era: str, connected: dict) -> None:
        seen = {"protocol": connected["protocol"], "call": self.client.ask("call", "add").get("text")}
        assert seen == {"protocol": era, "call": "5"}, (self.name, seen, connected, self.story())


def replicas(world: World) -> list:
    return [pod for pod in list(world.kubelet.pods.values()) if pod.pod_name.startswith(NAME) and pod.containers]


def peers(pod) -> list[str]:
    """What a replica's metrics say of the others."""
    lines = ask("127.0.0.1", 9091, "/metrics", pod=pod)[2].get("text", "").splitlines()
    return [line for line in lines if line.startswith("kagent_proxy_session_peers")]


def acquainted(world: World) -> None:
    """The replicas know each other: who does not answer in time, as a busy one, is not told of a refusal."""
    for pod in replicas(world):
        until(lambda p=pod: "kagent_proxy_session_peers 1" in peers(p), 30, lambda p=pod: (peers(p), p.logs()))


def played(world: World, scene: str, play: Callable[[Play], None]) -> None:
    """The scene with each SDK's client, side by side: most of the time they wait."""
    for space in (HOME, SPACE):
        world.namespace(space)
    world.apply(*crds.of_1_0())
    world.proxy(**PROXY)
    world.wait_ready(HOME, NAME, 2)
    acquainted(world)
    spread = Spread([(pod.address, PORT) for pod in replicas(world)])
    with contextlib.closing(Stage(world.program)) as stage, concurrent.futures.ThreadPoolExecutor() as pool:
        url = f"http://127.0.0.1:{spread.port}/mcp"
        list(pool.map(lambda client: play(Play(world, stage, url, scene, *client)), build.eras().items()))


@scenario
def comes_behind_the_hold(world: World) -> None:
    """eras: a client that was refused before its server was scaled from 0 to 1 speaks 2026-07-28 once it is ready"""

    def scene(play: Play) -> None:
        play.deploy(0)
        world.apply(service(SPACE, play.name, 8080))
        play.mark()
        play.known()
        connected = play.client.order("connect", play.url)
        play.refused()
        world.plane.kubectl("-n", SPACE, "scale", f"deployment/{play.name}", "--replicas=1")
        play.unready()
        # Right behind a refusal it comes while what the client sends next would wait for it.
        play.refused()
        play.gate.touch()
        answer = connected()
        play.speaks(MODERN, answer)
        assert answer["tries"] > 1, answer

    played(world, "scaled", scene)


@scenario
def marked_late(world: World) -> None:
    """eras: a client that was refused before its server had a Service, and then no mark, speaks 2026-07-28 after it"""

    def scene(play: Play) -> None:
        play.gate.touch()
        play.deploy()
        until(lambda: any(pod.is_ready for pod in play.pods()), 60, lambda: world.state(SPACE))
        connected = play.client.order("connect", play.url)
        play.refused()
        world.apply(service(SPACE, play.name, 8080))
        play.mark()
        answer = connected()
        play.speaks(MODERN, answer)
        assert answer["tries"] > 1, answer

    played(world, "marked", scene)


@scenario
def rolled_and_ended(world: World) -> None:
    """eras: clients that connect while a rollout ends pods, and while the only pod ends, all speak 2026-07-28"""

    def scene(play: Play) -> None:
        # A pod that is told to end serves on for a moment.
        play.serve(LINGER="1")
        [old] = play.pods()
        with connecting(play) as seen:
            world.plane.kubectl("-n", SPACE, "rollout", "restart", f"deployment/{play.name}")
            until(old.deleted.is_set, 60, lambda: world.state(SPACE))
            before = len(seen)
            until(lambda: old not in play.pods(), 60, lambda: world.state(SPACE))
            assert len(seen) > before, "nobody came while it ended"
            [old] = play.pods()
            acquainted(world)
            play.gate.unlink()
            world.api.delete(old.reference())
            play.refused()
            play.unready()
            play.refused()
            before = len(seen)
            play.gate.touch()
            until(lambda: len(seen) > before + 2, 30, lambda: world.state(SPACE))
        wrong = [answer for answer in seen if answer["protocol"] != MODERN]
        assert not wrong, (play.name, wrong, len(seen), play.story())
        assert any(answer["tries"] > 1 for answer in seen), (play.name, seen)
        play.speaks(MODERN, play.client.ask("connect", play.url))

    played(world, "rolled", scene)


@contextlib.contextmanager
def connecting(play: Play):
    """The client connects anew, again and again, while the block runs; what it came to each time."""
    ended, seen = threading.Event(), []

    def run() -> None:
        while not ended.wait(0.05):  # between two, for the machine has others to serve
            seen.append(play.client.ask("connect", play.url))

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(run)
        try:
            yield seen
        finally:
            ended.set()
        running.result()


@scenario
def control(world: World) -> None:
    """eras: control: by one 404 to their first question the same clients fall back"""

    def scene(play: Play) -> None:
        play.serve(OLD="yes")
        play.speaks(LEGACY, play.client.ask("connect", play.url))

    played(world, "control", scene)
