"""Clients that speak both eras of MCP, before servers that come, go and end: Python 2.x, TypeScript 2.x and Go 1.8.

A client in automatic mode asks for 2026-07-28 first, and goes on with an older revision where a server seems not to
know it, for as long as it lives. Whatever it meets, dead, late, closing or draining, it must end in the same era
through the proxy as without one. The controls show that an answer with 404 would not do: it makes each of them fall
back.
"""

import concurrent.futures
import signal
import time
from collections.abc import Callable

from eras import NOT_FOUND, Door, Follower, at
from harness import HERE, Proxy, Results, Stage, free_port, go, node, python, run_suite

HOST = "tools.ns"
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
# After so many seconds the server is there. A request waits for it for 2 s: in 0.5 s the first one still does. After
# that the first one has been refused, and what the client sends next must not be the one that finds the server.
LATE = {"within the hold": 0.5, "behind the hold": 2.7, "long behind it": 3.2}


class Scene:
    """A door before a server, and a client there: direct, or through a proxy."""

    def __init__(self, stage: Stage, sdk: str, client: list, server: int, proxied: bool) -> None:
        self.stage, self.door = stage, Door(server)
        self.proxy = stage.proxy({HOST: self.door.port}) if proxied else None
        base = self.proxy.url if self.proxy else f"http://127.0.0.1:{self.door.port}"
        self.url = f"{base}/mcp"
        self.client = Follower(stage, sdk, client, "auto", HOST)

    def era(self, connected: dict) -> dict:
        """What it has come to, and that it works."""
        return {"protocol": connected["protocol"], "call": self.client.ask("call", "add")["text"]}


def dead(scene: Scene) -> dict:
    """The server is gone for the first attempts."""
    connected = scene.client.order("connect", scene.url)
    at(time.monotonic(), 5.0)
    scene.door.open()
    return scene.era(connected())


def late(scene: Scene, seconds: float) -> dict:
    connected = scene.client.order("connect", scene.url)
    at(time.monotonic(), seconds)
    scene.door.open()
    return scene.era(connected())


def closing(scene: Scene) -> dict:
    """The server takes connections and closes them, then is gone, then is there."""
    scene.door.open(breaks=True)
    connected = scene.client.order("connect", scene.url)
    begun = time.monotonic()
    at(begun, 1.0)
    scene.door.shut()
    at(begun, 2.0)
    scene.door.open()
    return scene.era(connected())


def outage(scene: Scene) -> dict:
    """The server goes and comes back while the client is connected. A call meanwhile ends the Python client for good
    when it is direct; through the proxy the same client goes on."""
    scene.door.open()
    scene.client.ask("connect", scene.url)
    before = scene.client.ask("call", "add")["text"]
    scene.door.shut()
    lost = scene.client.ask("call", "add") if scene.proxy else {"error": True}
    scene.door.open()
    connected = {"protocol": MODERN} if scene.proxy else scene.client.ask("connect", scene.url)
    return {**scene.era(connected), "before": before, "fails meanwhile": fails(lost)}


def fails(answer: dict) -> bool:
    return "error" in answer or answer["told"]


def speaks(results: Results, stage: Stage, sdk: str, client: list, server: int, mode: str) -> None:
    """Both sides of one SDK, in one mode, when nothing goes wrong."""
    seen = {}
    proxy = stage.proxy({HOST: server})
    for name, base in {"direct": f"http://127.0.0.1:{server}", "proxied": proxy.url}.items():
        follower = Follower(stage, sdk, client, mode, HOST)
        connected = follower.ask("connect", f"{base}/mcp")
        seen[name] = {
            "protocol": connected["protocol"],
            "first try": connected["tries"] == 1,
            "add": follower.ask("call", "add")["text"],
            "unknown tool": fails(follower.ask("call", "nothing")),
        }
    results.compare(f"{sdk} {mode}", seen["direct"], seen["proxied"])
    expected = MODERN if mode == "auto" else LEGACY
    results.check(f"{sdk} {mode} is what was asked for", seen["proxied"]["protocol"] == expected, seen)
    results.through(f"{sdk} {mode}", proxy, HOST, 3)


def eras(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    scenes = {"dead": dead, "closing": closing, "outage": outage}
    scenes |= {f"late {name}": lambda scene, s=s: late(scene, s) for name, s in LATE.items()}

    def played(play: Callable[[Scene], dict], proxied: bool) -> dict:
        for _ in range(3):
            seen = play(Scene(stage, sdk, client, server, proxied))
            # Go falls back even when nobody is there. Direct its two requests follow each other at once, and now and
            # then the server comes between them.
            if proxied or seen["protocol"] == MODERN:
                break
        return seen

    for name, play in scenes.items():
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            direct, proxied = pool.map(lambda way, play=play: played(play, way), (False, True))
        results.compare(f"{sdk} {name}", direct, proxied)
        results.check(f"{sdk} {name} is modern", proxied["protocol"] == MODERN, proxied)


def one_of_two(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """One of the route's two servers is about to end: it takes connections and closes them."""
    doors = [Door(server).open(breaks=True), Door(server).open()]
    proxy = stage.proxy({HOST: [door.port for door in doors]})
    follower = Follower(stage, sdk, client, "auto", HOST)
    seen = [follower.ask("connect", f"{proxy.url}/mcp")["protocol"] for _ in range(6)]
    results.check(f"{sdk} one of two breaks off", set(seen) == {MODERN} and doors[0].knocks > 0, seen)


def draining(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """The proxy itself drains while the client connects, and the next one takes its place, at the same port."""
    old = stage.proxy({HOST: server})
    follower = Follower(stage, sdk, client, "auto", HOST)
    old.process.send_signal(signal.SIGTERM)
    connected = follower.order("connect", f"{old.url}/mcp")
    old.process.wait(timeout=30)
    stage.proxy({HOST: server}, port=old.port)
    seen = {"protocol": connected()["protocol"], "call": follower.ask("call", "add")["text"]}
    results.check(f"{sdk} the proxy drains", seen == {"protocol": MODERN, "call": "5"}, seen)


def control(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """One answer with 404 where the proxy must never give one."""
    door = Door(server).open(first=NOT_FOUND)
    follower = Follower(stage, sdk, client, "auto", HOST)
    seen = follower.ask("connect", f"http://127.0.0.1:{door.port}/mcp")
    results.check(f"{sdk} control: falls back on 404", seen["protocol"] == LEGACY, seen)


def lost(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """A call whose server goes away is told to the model, and is no error that somebody would repeat."""
    scene = Scene(stage, sdk, client, server, proxied=True)
    scene.door.open()
    scene.client.ask("connect", scene.url)
    knocks = scene.door.knocks
    scene.door.shut()
    scene.door.open(breaks=True)
    seen = scene.client.ask("call", "add")
    good = seen.get("told") is True and "may or may not have taken effect" in seen.get("text", "")
    results.check(f"{sdk} a lost call is told", good and scene.door.knocks > knocks, seen)


def subscribed(stage: Stage, sdk: str, client: list, url: str) -> Follower:
    follower = Follower(stage, sdk, client, "auto", HOST)
    follower.ask("connect", url)
    follower.ask("listen")
    return follower


def change(follower: Follower) -> dict:
    follower.ask("call", "announce")
    return follower.ask("change")


def subscriptions(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """The server ends it, the proxy drains, the server dies; and the client goes on through another proxy."""
    direct = subscribed(stage, sdk, client, f"http://127.0.0.1:{server}/mcp")
    seen_direct = {**change(direct)}
    direct.ask("call", "end")
    seen_direct |= direct.ask("end")
    one, other = stage.proxy({HOST: server}), stage.proxy({HOST: server})
    follower = subscribed(stage, sdk, client, f"{one.url}/mcp")
    seen_proxied = {**change(follower)}
    open_streams = f'kagent_proxy_open_streams{{route="{HOST}"}} 1'
    results.check(f"{sdk} it counts as a stream", open_streams in one.metrics(), one.metrics())
    one.process.send_signal(signal.SIGTERM)
    seen_proxied |= follower.ask("end")
    results.compare(f"{sdk} subscription", seen_direct, seen_proxied)
    results.check(f"{sdk} subscription ends in order", seen_proxied["ended"] == "graceful", seen_proxied)
    one.process.wait(timeout=30)
    follower.ask("connect", f"{other.url}/mcp")
    again = {**follower.ask("listen"), **change(follower)}
    results.check(f"{sdk} subscribes again elsewhere", again == {"honored": True, "changed": True}, again)
    results.check(f"{sdk} it went through", carried(other) and carried(one, live=False), other.lines())
    # A loss must stay one, through the proxy too.
    scene = Scene(stage, sdk, client, server, proxied=True)
    scene.door.open()
    broken = subscribed(stage, sdk, client, scene.url)
    scene.door.shut()
    ended = broken.ask("end")
    results.check(f"{sdk} control: a loss is seen as one", ended == {"ended": "remote"}, ended)


def carried(proxy: Proxy, live: bool = True) -> bool:
    lines = proxy.lines() if live else proxy.last_lines()
    return any(line["route"] == HOST and line["status"] == 200 for line in lines)


def run(results: Results, stage: Stage, environments: tuple) -> None:
    interpreter, folder, program = environments
    clients = {
        "python-2": [interpreter, HERE / "python" / "client_eras.py"],
        "typescript-2": ["node", folder / "client.mjs"],
        "go-1.8": [program, "client"],
    }
    # Each has a server for both eras to itself, and one of its own SDK.
    ports = {sdk: free_port() for sdk in clients}
    for sdk, port in ports.items():
        stage.start(f"server-for-{sdk}", ["node", folder / "server.mjs", port], port)
    servers = {"python-2": free_port(), "go-1.8": free_port(), "typescript-2": ports["typescript-2"]}
    python_server = [interpreter, HERE / "python" / "server_mcp_2.py", "streamable-http"]
    stage.start("server-python", [*python_server, servers["python-2"]], servers["python-2"])
    stage.start("server-go", [program, "serve", servers["go-1.8"]], servers["go-1.8"])

    def look(sdk: str) -> None:
        client, port = clients[sdk], ports[sdk]
        for mode in ("auto", "legacy"):
            speaks(results, stage, sdk, client, servers[sdk], mode)
        for scene in (control, eras, one_of_two, draining, lost):
            scene(results, stage, sdk, client, port)
        if sdk != "go-1.8":  # its clients do not show the end of a subscription
            subscriptions(results, stage, sdk, client, port)

    # Most of the time they wait.
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(look, clients))


run_suite("mcp-eras", lambda: (python("mcp-2"), node("ts2"), go("go_eras")), run)
