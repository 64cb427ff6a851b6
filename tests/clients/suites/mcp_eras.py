"""Clients that speak both eras of MCP, before servers that come, go and end: Python 2.x, TypeScript 2.x, Go 1.8, rmcp 3.

A client in automatic mode asks for 2026-07-28 first, and goes on with an older revision where a server seems not to
know it, for as long as it lives. Whatever it meets, dead, late, unready, ending or draining, it must end in the same
era through the proxy as without one. The controls play the same scenes with one answer of 404 where nobody should
answer: each client falls back.
"""

import concurrent.futures
import pathlib
import signal
import socket
import time
from collections.abc import Callable

from eras import NOT_FOUND, SECONDS, UNAVAILABLE, Door, Follower, Kept, Spread, at
from harness import HERE, Proxy, Results, Stage, free_port, go, node, python, run_suite, rust

HOST = "tools.ns"
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
# By an answer to `server/discover`. Others take it for a failure.
FALLS_BACK_ON_503 = ("python-2", "go-1.8")
# After so many seconds the server is there. A request waits for it for 2 s: in 0.5 s the first one still does. After
# that the first one has been refused, and what the client sends next must not be the one that finds the server.
LATE = {"within the hold": 0.5, "behind the hold": 2.7, "long behind it": 3.2}


class Scene:
    """A door before a server, and a client there: direct, or through a proxy. What comes while the server takes nobody
    is refused, or gets another answer `instead`."""

    def __init__(
        self, stage: Stage, sdk: str, client: list, server: int, proxied: bool, instead: bytes | None = None
    ) -> None:
        self.stage, self.door, self.instead = stage, Door(server), instead
        self.server, self._another = server, lambda: Follower(stage, sdk, client, "auto", HOST)
        self.proxy = stage.proxy({HOST: self.door.port}) if proxied else None
        base = self.proxy.url if self.proxy else f"http://127.0.0.1:{self.door.port}"
        self.url = f"{base}/mcp"
        self.client = self.another()

    def another(self) -> Follower:
        """A client that has no connection yet."""
        return self._another()

    def era(self, connected: dict, client: Follower | None = None) -> dict:
        """What it has come to, and that it works."""
        return {"protocol": connected["protocol"], "call": (client or self.client).ask("call", "add")["text"]}


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


def ending(scene: Scene) -> dict:
    """The server ends, with a call that somebody has open: it takes no connection, and serves that call to its end. The
    next one is there before that."""
    scene.door.open()
    kept = Kept(scene.url, scene.server, HOST)
    scene.door.retire(scene.instead)
    connected = scene.client.order("connect", scene.url)
    at(time.monotonic(), LATE["behind the hold"])
    scene.door.open()
    return {**scene.era(connected()), "kept": kept.release()}


def leaving(scene: Scene) -> dict:
    """The server ends while one client is connected and another one comes: it keeps the connections that it has and
    takes no others, and is gone, connections and all, when the next one comes. Whether a call meanwhile finds an idle
    connection is luck, so nobody makes one."""
    scene.door.open()
    scene.client.ask("connect", scene.url)
    before = scene.client.ask("call", "add")["text"]
    scene.door.retire(scene.instead)
    newcomer = scene.another()
    connected = newcomer.order("connect", scene.url)
    at(time.monotonic(), 1.0)
    if scene.instead is None:
        scene.door.shut()
    scene.door.open()
    seen = {**scene.era(connected(), newcomer), "before": before}
    return {**seen, "after": scene.client.ask("call", "add").get("text")}


def unready(scene: Scene, answers: int) -> dict:
    """The server itself answers 503 at first."""
    scene.door.open(first=[scene.instead or UNAVAILABLE] * answers)
    return scene.era(scene.client.ask("connect", scene.url))


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
    scenes = {"dead": dead, "closing": closing, "outage": outage, "ending": ending, "leaving": leaving}
    scenes["unready"] = lambda scene: unready(scene, 2)
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
    seen = []
    # Which of the two has a request is left to chance.
    while len(seen) < 6 or (doors[0].knocks == 0 and len(seen) < 60):
        seen.append(follower.ask("connect", f"{proxy.url}/mcp")["protocol"])
    results.check(f"{sdk} one of two breaks off", set(seen) == {MODERN} and doors[0].knocks > 0, seen)


def draining(
    results: Results, stage: Stage, sdk: str, client: list, server: int, instead: bytes | None = None
) -> None:
    """The proxy itself drains, with a call open, so that it lives on and takes nobody. The next one takes its place at
    the same port. Nobody is there between the two, or somebody who gives another answer `instead`."""
    config = pathlib.Path(stage.folder / "drain-at-once.yaml")
    config.write_text("drain: {lag: 0s}\n")
    at_once = {"KAGENT_PROXY_CONFIG": str(config)}
    old = stage.proxy({HOST: server}, env=at_once)
    follower = Follower(stage, sdk, client, "auto", HOST)
    kept = Kept(f"{old.url}/mcp", server, HOST)
    old.process.send_signal(signal.SIGTERM)
    refuses(old.port)
    between = Door(server, old.port)
    if instead is not None:
        between.retire(instead)
    connected = follower.order("connect", f"{old.url}/mcp")
    at(time.monotonic(), 1.0)
    between.leave()
    stage.proxy({HOST: server}, port=old.port)
    between.answer()
    seen = {"protocol": connected()["protocol"], "call": follower.ask("call", "add")["text"]}
    seen["the old one lives on"] = old.process.poll() is None
    seen |= {"kept": kept.release(), "and ends": old.process.wait(timeout=SECONDS)}
    expected = {"call": "5", "the old one lives on": True, "kept": "released", "and ends": 0}
    expected["protocol"] = MODERN if instead is None else LEGACY
    name = "the proxy drains" if instead is None else "control: falls back on 404 while the proxy drains"
    results.check(f"{sdk} {name}", seen == expected, seen)


def replicas(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """Two replicas behind a balancer that gives each request to the next one, and a server that comes while what the
    client sends next would be held by the other replica."""
    admins, door = [free_port(), free_port()], Door(server)
    (stage.folder / "replicas.key").write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n")
    peers = ", ".join(f'"127.0.0.1:{admin}"' for admin in admins)
    config = pathlib.Path(stage.folder / f"replicas-{sdk}.yaml")
    config.write_text(f'sessions: {{keyFiles: ["{stage.folder}/replicas.key"], peers: [{peers}]}}\n')
    env = {"KAGENT_PROXY_CONFIG": str(config)}
    proxies = [stage.proxy({HOST: door.port}, env=env, admin=admin) for admin in admins]
    deadline = time.monotonic() + SECONDS
    while not all("kagent_proxy_session_peers 1\n" in proxy.metrics() for proxy in proxies):
        if time.monotonic() > deadline:
            raise RuntimeError("the replicas do not find each other")
        time.sleep(0.05)  # between two looks
    spread = Spread([("127.0.0.1", proxy.port) for proxy in proxies])
    url = f"http://127.0.0.1:{spread.port}/mcp"
    follower = Follower(stage, sdk, client, "auto", HOST)
    connected = follower.order("connect", url)
    at(time.monotonic(), LATE["behind the hold"])
    door.open()
    seen = {"protocol": connected()["protocol"], "call": follower.ask("call", "add")["text"]}
    seen["both were asked"] = all(proxy.requests(HOST) > 0 for proxy in proxies)
    expected = {"protocol": MODERN, "call": "5", "both were asked": True}
    results.check(f"{sdk} late behind the hold of two replicas", seen == expected, seen)


def refuses(port: int) -> None:
    """Waits until nobody listens there."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return
        time.sleep(0.01)  # between two looks
    raise RuntimeError(f"{port} is still listened on")


def controls(results: Results, stage: Stage, sdk: str, client: list, server: int) -> None:
    """One answer with 404 where the proxy must never give one, nor what is in front of it."""
    for name, play in {"unready": lambda scene: unready(scene, 1), "ending": ending, "leaving": leaving}.items():
        seen = play(Scene(stage, sdk, client, server, proxied=False, instead=NOT_FOUND))
        results.check(f"{sdk} control: falls back on 404 while {name}", seen["protocol"] == LEGACY, seen)
    draining(results, stage, sdk, client, server, instead=NOT_FOUND)
    # What a backend says itself is passed on: by one 503 too few a client falls back through the proxy as direct.
    seen = [
        unready(Scene(stage, sdk, client, server, proxied=proxied), 1)["protocol"] for proxied in (False, True)
    ]
    expected = LEGACY if sdk in FALLS_BACK_ON_503 else MODERN
    results.check(f"{sdk} control: one 503 of the backend", seen == [expected, expected], seen)


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
    interpreter, folder, program, crate = environments
    clients = {
        "python-2": [interpreter, HERE / "python" / "client_eras.py"],
        "typescript-2": ["node", folder / "client.mjs"],
        "go-1.8": [program, "client"],
        "rmcp-3": [crate, "eras"],
    }
    # Each has a server for both eras to itself, and one of its own SDK.
    ports = {sdk: free_port() for sdk in clients}
    for sdk, port in ports.items():
        stage.start(f"server-for-{sdk}", ["node", folder / "server.mjs", port], port)
    servers = {"python-2": free_port(), "go-1.8": free_port(), "rmcp-3": free_port()}
    servers["typescript-2"] = ports["typescript-2"]
    python_server = [interpreter, HERE / "python" / "server_mcp_2.py", "streamable-http"]
    stage.start("server-python", [*python_server, servers["python-2"]], servers["python-2"])
    stage.start("server-go", [program, "serve", servers["go-1.8"]], servers["go-1.8"])
    stage.start("server-rmcp", [crate, "server", servers["rmcp-3"]], servers["rmcp-3"])

    def look(sdk: str) -> None:
        client, port = clients[sdk], ports[sdk]
        for mode in ("auto", "legacy"):
            speaks(results, stage, sdk, client, servers[sdk], mode)
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            wrong = beside.submit(controls, results, stage, sdk, client, port)
            for scene in (eras, one_of_two, draining, replicas, lost):
                scene(results, stage, sdk, client, port)
            wrong.result()
        if sdk in ("python-2", "typescript-2"):  # the others' clients do not show the end of a subscription
            subscriptions(results, stage, sdk, client, port)

    # Most of the time they wait.
    with concurrent.futures.ThreadPoolExecutor(len(clients)) as pool:
        list(pool.map(look, clients))


run_suite("mcp-eras", lambda: (python("mcp-2"), node("ts2"), go("go_eras"), rust("rust")), run)
