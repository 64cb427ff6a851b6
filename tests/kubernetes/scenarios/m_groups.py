"""Both API groups of kagent: that of 1.0 alone, beside the other, and instead of it while calls run.

In 1.0 nothing rewrites a URL: a RemoteMCPServer names the proxy, and its target in a header.
"""

import contextlib
import http.client
import json
import socket
import threading

import crds
from api import LOST, until
from c_routes import agent, agent_service, port, remote
from e_rights import Rights
from mcp_client import Session
from newer import KINDS, PROXY, SPACE, binding, of_1_0, opted
from world import World, deployment, scenario, service

from proxy import PORT


def up(proxy, kind: str) -> float | None:
    return proxy.metric("kagent_proxy_discovery_up", kind=f"{kind}.api.kagent.dev")


def remove(world: World, name: str) -> None:
    """Takes a definition away, and so all its objects."""
    version, kind = "apiextensions.k8s.io/v1", "CustomResourceDefinition"

    def gone() -> bool:
        found = [thing for thing in world.api.list(version, kind) if thing["metadata"]["name"] == name]
        for thing in found:
            world.api.delete({"apiVersion": version, "kind": kind, **thing})
        return not found

    until(gone, 60, lambda: world.plane.kubectl("get", "crd"))
    world.api.kinds.clear()


def stage(world: World, app: str = "echo") -> None:
    world.namespace("kagent")
    world.namespace(SPACE)
    world.apply(deployment(SPACE, app, "backend:8084-8085"))
    world.apply(service(SPACE, f"{app}-ready", 8084, app=app))
    world.wait_ready(SPACE, f"{app}-ready")


# In which order the definitions come, and in which they go: each kind is once the first and once the last.
ORDERS = (
    (("agents", "agenttemplates", "remotemcpservers"), ("agenttemplates", "agents", "remotemcpservers")),
    (("remotemcpservers", "agenttemplates", "agents"), ("remotemcpservers", "agents", "agenttemplates")),
)
LATE = f"late.{SPACE}"
EFFECTS = {
    "agents": (
        of_1_0("Agent", "alone", {"template": {"inline": {"tools": [binding("late")]}}}),
        of_1_0("Agent", "leaning", {"template": {"ref": {"name": "leant-on"}}}),
    ),
    "agenttemplates": (of_1_0("AgentTemplate", "leant-on", {"tools": [binding("late")]}),),
    "remotemcpservers": (opted("late", f"{LATE}:8085"),),
}


@scenario
def each_kind_comes_and_goes(world: World) -> None:
    """groups: the definitions of kagent 1.0 come and go one by one, in any order, each with its effect, no restart"""
    for kind in KINDS:
        remove(world, f"{kind}.api.kagent.dev")
    stage(world)
    world.apply(service(SPACE, "late", port(8084), port(8085), app="echo"))
    definitions = {definition["spec"]["names"]["plural"]: definition for definition in crds.of_1_0()}
    proxy = world.proxy()
    uid = proxy.pod.uid
    there: set[str] = set()
    takes_effect(proxy, there)
    for comes, goes in ORDERS:
        for kind in comes:
            world.apply(definitions[kind])
            until(lambda k=kind: up(proxy, k) == 1, 90, proxy.discovery)
            world.apply(*EFFECTS[kind])
            there.add(kind)
            takes_effect(proxy, there)
        for kind in goes:
            remove(world, f"{kind}.api.kagent.dev")
            there.remove(kind)
            takes_effect(proxy, there)
    assert proxy.pod.uid == uid and proxy.pod.containers[0].restarts == 0, proxy.log()
    world.apply(*crds.of_1_0())


def takes_effect(proxy, there: set[str]) -> None:
    """What the objects of these kinds, and of no others of kagent 1.0, are good for."""
    if "remotemcpservers" in there:
        proxy.routed(f"{LATE}:8085", "/mcp", "echo", 8085, seconds=60)
    else:
        proxy.refused(LATE, "/mcp", 403, "forbidden_target", seconds=60)
    declare = set()
    if {"agents", "remotemcpservers"} <= there:
        declare = {"alone", "leaning"} if "agenttemplates" in there else {"alone"}
    wanted = {(f"{SPACE}/{name}", LATE) for name in declare}
    until(lambda: declared(proxy) == wanted, 60, lambda: (there, declared(proxy), wanted))
    until(lambda: {kind for kind in KINDS if up(proxy, kind) == 1} == there, 60, proxy.discovery)


def declared(proxy) -> set[tuple[str, str]]:
    """Which Agents of kagent 1.0 say that they use which host."""
    found = json.loads(proxy.admin("/sight")[1])["edges"]
    pairs = {(edge["from"], edge["to"].split(":")[0]) for edge in found}
    return {(agent, host) for agent, host in pairs if agent.startswith(f"{SPACE}/")}


@scenario
def one_object_is_enough(world: World) -> None:
    """groups: one RemoteMCPServer that names the proxy opens its target, with the port in the header or without"""
    stage(world)
    world.apply(*crds.of_1_0())
    world.apply(
        service(SPACE, "single", port(8084), app="echo"),
        service(SPACE, "several", port(8084), port(8085), app="echo"),
    )
    proxy = world.proxy()
    for host in ("single", "several"):
        proxy.refused(f"{host}.{SPACE}", "/mcp", 403, "forbidden_target")
    world.apply(opted("single", f"single.{SPACE}"), opted("several", f"several.{SPACE}.svc.cluster.local:8085"))
    for value, number in (
        (f"single.{SPACE}", 8084),
        (f"single.{SPACE}:8084", 8084),
        (f"several.{SPACE}:8085", 8085),
        (f"several.{SPACE}.svc.cluster.local:8085", 8085),
        (f"several.{SPACE}:8084", 8084),
    ):
        saw = proxy.routed(value, "/mcp", "echo", number, method="POST", body=b"{}")
        assert saw["path"] == "/mcp", saw
    # As agents of 1.0 do it: all from the address of one gateway.
    world.namespace("ate-system")
    gateway = deployment("ate-system", "atenet-egress", "backend:8080")
    world.apply(gateway, service("ate-system", "atenet-egress", 8080))
    world.wait_ready("ate-system", "atenet-egress")
    pod = world.kubelet.pod("atenet-egress")
    status, _, body = proxy.ask(f"single.{SPACE}", "/mcp", "POST", caller=pod, body=b"{}")
    assert status == 200, body
    until(lambda: '"host":"single.' in proxy.log() and '"caller":"unknown"' in proxy.log(), 20, proxy.log)
    assert '"caller":"ate-system' not in proxy.log()


@scenario
def written_wrong(world: World) -> None:
    """groups: each way to write the opt-in form wrong gets an error that names the remedy"""
    stage(world)
    world.apply(*crds.of_1_0())
    world.apply(
        service(SPACE, "two", port(8084), port(8085), app="echo"),
        service(SPACE, "foreign", port(8084), app="echo"),
        opted("self", "kagent-proxy.kagent"),
        opted("two", f"two.{SPACE}"),
        opted("typo", f"tow.{SPACE}"),
    )
    world.namespace("stranger")
    world.apply(opted("bends", f"foreign.{SPACE}", space="stranger"))
    world.apply(of_1_0("Agent", "hosted", {"template": {"inline": {"tools": []}}}))
    proxy = world.proxy()
    for host, status, reason, parts in (
        ("kagent-proxy.kagent", 403, "forbidden_target", ("this proxy itself", "x-kagent-host: NAME.NAMESPACE")),
        (f"two.{SPACE}", 500, "ambiguous_target", (f"two.{SPACE}:PORT", "mcp-service-port")),
        (f"two.{SPACE}:9", 400, "bad_target", ("port 9", "[8084, 8085]")),
        (f"tow.{SPACE}", 503, "unknown_target", (f"RemoteMCPServer {SPACE}/typo", "headersFrom")),
        (f"foreign.{SPACE}", 403, "forbidden_target", ("untrusted", "into the Service's namespace")),
        (f"hosted.{SPACE}", 403, "forbidden_target", (f"/agents/{SPACE}/hosted",)),
        (None, 400, "missing_target", ("headersFrom",)),
    ):
        text = json.dumps(proxy.refused(host, "/mcp", status, reason, seconds=20))
        assert all(part in text for part in parts), (host, text)
    world.apply(opted("two", f"two.{SPACE}:8085"))
    proxy.routed(f"two.{SPACE}:8085", "/mcp", "echo", 8085)


@scenario
def both_at_once(world: World) -> None:
    """groups: where both groups have an object of one name, the newer one counts, and explain says so"""
    world.definitions()
    world.apply(*crds.of_1_0())
    stage(world)
    [made] = world.apply(agent(SPACE, "twin"))
    world.apply(
        agent_service(made, "echo", 8084),
        service(SPACE, "tools", port(8084), port(8085), app="echo"),
        remote(SPACE, "tools", f"http://tools.{SPACE}:8084/mcp"),
        remote(SPACE, "only-old", f"http://old.{SPACE}:8085/mcp"),
        service(SPACE, "old", port(8084), port(8085), app="echo"),
    )
    proxy = world.proxy()
    proxy.routed(f"tools.{SPACE}", "/mcp", "echo", 8084)
    proxy.routed(f"old.{SPACE}", "/mcp", "echo", 8085)
    proxy.routed(f"twin.{SPACE}", "/", "echo", 8084)
    world.apply(
        of_1_0("RemoteMCPServer", "tools", {"description": "d", "url": f"http://tools.{SPACE}:8085/mcp"}),
        of_1_0("Agent", "twin", {"template": {"inline": {"tools": []}}}),
    )
    proxy.routed(f"tools.{SPACE}", "/mcp", "echo", 8085)
    said = proxy.explain(f"tools.{SPACE}", "/mcp")
    assert f"RemoteMCPServer {SPACE}/tools of kagent.dev" in said and "api.kagent.dev has one of this name" in said, said
    # The Agent of 0.x has its Service still.
    proxy.routed(f"twin.{SPACE}", "/", "echo", 8084)
    proxy.routed(f"old.{SPACE}", "/mcp", "echo", 8085)
    world.api.delete(of_1_0("RemoteMCPServer", "tools", {}))
    proxy.routed(f"tools.{SPACE}", "/mcp", "echo", 8084)


@scenario
def templates_are_in_the_graph(world: World) -> None:
    """groups: what AgentTemplates list is what their Agents declare, through templates of sub-agents too"""
    stage(world)
    world.apply(*crds.of_1_0())
    world.apply(
        service(SPACE, "graph-a", port(8084), app="echo"),
        service(SPACE, "graph-b", port(8084), app="echo"),
        opted("graph-a", f"graph-a.{SPACE}"),
        opted("graph-b", f"graph-b.{SPACE}"),
    )
    inner = {"name": "inner", "description": "d", "templateRef": {"name": "graph-inner"}}
    world.apply(
        of_1_0("AgentTemplate", "graph-outer", {"tools": [binding("graph-a", "add"), {"subAgent": inner}]}),
        of_1_0("AgentTemplate", "graph-inner", {"tools": [binding("graph-b")]}),
        of_1_0("Agent", "graph-agent", {"template": {"ref": {"name": "graph-outer"}}}),
    )
    proxy = world.proxy()

    def edges() -> set[str]:
        return {host for agent, host in declared(proxy) if agent == f"{SPACE}/graph-agent"}

    both = {f"graph-a.{SPACE}", f"graph-b.{SPACE}"}
    until(lambda: edges() == both, 30, edges)
    world.apply(of_1_0("AgentTemplate", "graph-inner", {"tools": []}))
    until(lambda: edges() == {f"graph-a.{SPACE}"}, 30, edges)


@scenario
def odd_shapes(world: World) -> None:
    """groups: objects of kagent 1.0 in shapes that nobody expects break nothing"""
    for definition in crds.of_1_0():
        # Without a schema, as a later version may be.
        [version] = definition["spec"]["versions"]
        version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        world.apply(definition)
    stage(world)
    proxy = world.proxy()
    shapes = {
        "RemoteMCPServer": ({"url": 7}, {"headersFrom": 1}, {"url": PROXY, "headersFrom": [{"name": 1}, 2]}, {}),
        "Agent": ({"template": 1}, {"templateRef": []}, {"template": {"ref": {"name": 3}}}, {}),
        "AgentTemplate": ({"tools": {}}, {"tools": [1, {"mcp": "x"}, {"subAgent": {"templateRef": 1}}]}, {}),
    }
    for kind, specs in shapes.items():
        world.apply(*(of_1_0(kind, f"odd-{number}", spec) for number, spec in enumerate(specs)))
        without = of_1_0(kind, "nothing", {})
        del without["spec"]
        world.apply(without)
    world.apply(service(SPACE, "mended", port(8084), app="echo"), opted("odd-0", f"mended.{SPACE}"))
    proxy.routed(f"mended.{SPACE}", "/mcp", "echo", 8084, seconds=30)
    assert proxy.pod.containers[0].restarts == 0, proxy.log()
    world.apply(*crds.of_1_0())


class Old(Rights):
    """The role of an installation that knew no kagent 1.0."""

    def changed(self, thing: dict) -> dict:
        if thing["kind"] == "ClusterRole":
            thing["rules"] = [rule for rule in thing["rules"] if "api.kagent.dev" not in rule["apiGroups"]]
        return super().changed(thing)


@scenario
def an_old_role(world: World) -> None:
    """groups: with a role that knows no kagent 1.0 the proxy is ready and says which rule it lacks"""
    world.definitions()
    world.apply(*crds.of_1_0())
    stage(world)
    world.apply(service(SPACE, "ruled", port(8084), app="echo"), remote(SPACE, "ruled", f"http://ruled.{SPACE}:8084/mcp"))
    world.end_proxy()
    with Old(world) as proxy:
        proxy.routed(f"ruled.{SPACE}", "/mcp", "echo", 8084)
        for kind in KINDS:
            rule = f"allow get, list and watch on {kind}.api.kagent.dev"
            until(lambda r=rule: r in proxy.log(), 30, proxy.log)
            assert up(proxy, kind) == 0


@contextlib.contextmanager
def calling(proxy, hosts: list[str]):
    """Calls run while the block does; what went wrong is a failure of the block."""
    ended, wrong, counts = threading.Event(), [], dict.fromkeys(hosts, 0)

    def run(host: str) -> None:
        while not ended.is_set():
            try:
                status, _, body = proxy.ask(host, "/mcp", "POST", body=b"{}")
            except OSError as error:
                status, body = 0, str(error)
            counts[host] += 1
            if status != 200:
                wrong.append((host, status, body))

    threads = [threading.Thread(target=run, args=(host,), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    assert not wrong, (len(wrong), wrong[:3])


class Stream:
    """An event stream from a pod of `echo`, which nothing ends but its client."""

    def __init__(self, proxy, host: str) -> None:
        self.connection = http.client.HTTPConnection(proxy.address, PORT, timeout=30)
        self.connection.request("GET", "/mcp/stream", headers={"x-kagent-host": host, "accept": "text/event-stream"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self.events: list[dict] = []
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        with contextlib.suppress(*LOST, ValueError, AttributeError):  # what a close by another thread makes of it
            while line := self.answer.readline():
                if line.startswith(b"data:"):
                    self.events.append(json.loads(line[5:]))

    def goes_on(self) -> None:
        """Two more events come, and all have come in order from one pod."""
        before = len(self.events)
        until(lambda: len(self.events) > before + 1, 10, lambda: ("the stream is silent", self.events[-3:]))
        seen = list(self.events)
        assert [event["number"] for event in seen] == list(range(len(seen))), seen
        assert len({event["pod"] for event in seen}) == 1, seen

    def end(self) -> None:
        self.connection.sock.shutdown(socket.SHUT_RDWR)


@scenario
def upgrade(world: World) -> None:
    """groups: from 0.10 to 1.0 while calls, a stream and a session run: both groups, the newer alone, no call fails"""
    world.definitions()
    world.apply(*crds.of_1_0())
    stage(world)
    kept = deployment(SPACE, "kept", "mcp-server:8080")
    marks = world.kubelet.folder / "groups-marks"
    marks.touch()
    [container] = kept["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "MARKS", "value": str(marks)}]
    world.apply(
        service(SPACE, "moved", port(8084), port(8085), app="echo"),
        remote(SPACE, "moved", f"http://moved.{SPACE}:8085/mcp"),
        kept,
        service(SPACE, "kept", port(8080), app="kept"),
        remote(SPACE, "kept", f"http://kept.{SPACE}:8080/mcp"),
    )
    world.wait_ready(SPACE, "kept")
    proxy = world.proxy()
    proxy.routed(f"moved.{SPACE}", "/mcp", "echo", 8085)
    session = Session(f"kept.{SPACE}", "upgraded").begin(proxy.address)
    assert session.count(proxy.address)[1] == 1
    stream, pod = Stream(proxy, f"moved.{SPACE}"), proxy.pod.uid
    stream.goes_on()
    pins = [f"moved.{SPACE}:8085", f"kept.{SPACE}:8080"]
    # As 0.10 has it sent, without a port, and as 1.0 does.
    with calling(proxy, [f"moved.{SPACE}"]) as old, calling(proxy, [pins[0]]) as counts:
        for thing in (opted("moved", pins[0]), opted("kept", pins[1])):
            before = counts[pins[0]]
            world.apply(thing)
            until(lambda b=before: counts[pins[0]] > b + 20, 30, lambda: counts)
        literal = f"RemoteMCPServer {SPACE}/moved names it in its x-kagent-host"
        until(lambda: literal in proxy.explain(f"moved.{SPACE}", "/mcp"), 30, proxy.discovery)
        before = sum(old.values())
        until(lambda: sum(old.values()) > before + 20, 30, lambda: old)
        assert session.count(proxy.address)[1] == 2, "in both groups"
        stream.goes_on()
    # Agents of 0.10 are gone; then its objects and definitions go.
    with calling(proxy, [pins[0]]) as counts:
        for name in ("moved", "kept"):
            world.api.delete(remote(SPACE, name, "http://x.y/"))
        literal = f"RemoteMCPServer {SPACE}/moved names it in its url"
        until(lambda: literal not in proxy.explain(f"moved.{SPACE}", "/mcp"), 30, proxy.discovery)
        for kind in ("agents", "sandboxagents", "remotemcpservers"):
            remove(world, f"{kind}.kagent.dev")
        until(lambda: proxy.metric("kagent_proxy_discovery_up", kind="remotemcpservers") == 0, 90, proxy.discovery)
        session.host = pins[1]
        assert session.count(proxy.address)[1] == 3, "in the newer group alone"
        before = counts[pins[0]]
        until(lambda: counts[pins[0]] > before + 20, 30, lambda: counts)
    # By the route of the group that is gone; it ends with its client.
    stream.goes_on()
    assert proxy.metric("kagent_proxy_open_streams") == 1 and proxy.pod.uid == pod, proxy.log()
    stream.end()
    until(lambda: proxy.metric("kagent_proxy_open_streams") in (None, 0), 30, lambda: proxy.admin("/metrics")[1])
    world.defined = None
    calls = sum(old.values()) + sum(counts.values())
    world.notes.append(f"# {calls} calls during the upgrade, none failed")
    world.definitions()
