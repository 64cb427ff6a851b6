"""Every call counted once, by its caller, tool and outcome: the proxy's books beside those of real servers.

Clients and servers are of the SDKs of MCP and A2A, of both eras and of each binding, each client in a pod with an
address of its own. Every server writes down who called what and how it answered (`ledger/`). At the end metrics, access
log and graph must say the same, and so must those who looked on: the admin's feed of calls, and `tap`. Equal counts,
and nothing besides.
"""

import collections
import json
import pathlib
import subprocess

import build
import crds
from api import until
from c_routes import agent, agent_service
from feed import Calls, Tap, told
from l_sight import uses
from mcp_client import HEADERS, PORT
from newer import binding, of_1_0, opted
from world import World, deployment, scenario, service

SPACE = "books"
GATEWAY = "ate-system"
SERVERS = {
    "tools": "ledger-tools",
    "batches": "ledger-batches",
    # Of MCP's revision 2026-07-28.
    "modern": "ledger-tools_2",
    # Of A2A: 1.0, and 0.3 by HTTP+JSON; 0.3 by JSON-RPC; both by gRPC.
    "writer": "ledger-agent",
    "elder": "ledger-agent_0",
    "speaker": "ledger-agent_grpc",
}
AGENTS = ("writer", "elder", "speaker")
ROUTES = {name: f"{name}.{SPACE}:8080" for name in SERVERS}
TOOLS = {"fast", "slow", "fail", "refuse", "idle", "wait"}
# Who calls, as labels say it. A Service makes a pod an Agent's; the gateway of kagent 1.0 is nobody's.
CALLERS = {
    "parent": f"{SPACE}/parent",
    "other": f"{SPACE}/other",
    "owned": f"{SPACE}/owned",
    "atenet-egress": "unknown",
    "stranger": "unknown",
}
ROUNDS = 4
# What clients of MCP say of their calls.
SAID = ("tools/call", "subscriptions/listen")
# The last revision with batches.
BATCHES = "2025-03-26"
LEDGER = pathlib.Path(build.HERE) / "ledger"


def stage(world: World) -> dict[str, pathlib.Path]:
    """Servers and callers; gives the servers' books."""
    world.definitions()
    world.apply(*crds.of_1_0())
    for space in (SPACE, GATEWAY):
        world.namespace(space)
    books = {}
    for name, image in SERVERS.items():
        books[name] = world.kubelet.folder / f"book-{name}"
        made = deployment(SPACE, f"books-{name}", f"{image}:8080")
        [container] = made["spec"]["template"]["spec"]["containers"]
        env = {"BOOK": str(books[name]), "URL": f"http://{ROUTES[name]}/"}
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
        if name == "speaker":
            container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        world.apply(made)
    ports = {"speaker": {"name": "grpc", "port": 8080, "appProtocol": "kubernetes.io/h2c"}}
    for made in world.apply(*(agent(SPACE, name) for name in AGENTS)):
        name = made["metadata"]["name"]
        world.apply(agent_service(made, f"books-{name}", ports.get(name, 8080)))
    # Some servers are tool servers by their label, the other one by an object of kagent 1.0.
    labels = {"labels": {"kagent.dev/mcp-service": "true"}}
    world.apply(
        service(SPACE, "tools", 8080, app="books-tools", metadata=labels),
        service(SPACE, "modern", 8080, app="books-modern", metadata=labels),
        service(SPACE, "batches", 8080, app="books-batches"),
        opted("tools", ROUTES["tools"], SPACE),
        opted("batches", ROUTES["batches"], SPACE),
    )
    callers(world)
    for name in (*SERVERS, *CALLERS):
        world.wait_ready(GATEWAY if name == "atenet-egress" else SPACE, name)
    return books


def callers(world: World) -> None:
    def sub(name: str) -> dict:
        return {"type": "Agent", "agent": {"name": name}}

    template = {"tools": [binding("tools", "fast", "idle"), binding("batches")]}
    [parent, other, owned, _] = world.apply(
        agent(SPACE, "parent", uses("tools", "fast", "slow", "idle"), uses("modern"), sub("writer"), sub("elder")),
        agent(SPACE, "other", uses("batches"), sub("speaker")),
        of_1_0("Agent", "owned", {"template": {"inline": template}}, SPACE),
        of_1_0("Agent", "hosted", {"template": {"inline": template}}, SPACE),
    )
    for name in CALLERS:
        space = GATEWAY if name == "atenet-egress" else SPACE
        world.apply(deployment(space, f"books-{name}", "backend:8080"))
    world.apply(
        agent_service(parent, "books-parent"),
        agent_service(other, "books-other"),
        agent_service(owned, "books-owned"),
        service(SPACE, "stranger", 8080, app="books-stranger"),
        service(GATEWAY, "atenet-egress", 8080, app="books-atenet-egress"),
    )


class Clients:
    """Processes of SDKs in the callers' pods."""

    def __init__(self, proxy) -> None:
        self.proxy, self.running = proxy, []

    def start(self, caller: str, environment: str, program: str, *before: str, path: str, to: str) -> None:
        url = f"http://{self.proxy.address}:{PORT}{path}"
        place = self.proxy.world.kubelet.pod(f"books-{caller}").place.name
        command = [build.python(environment), "-I", str(LEDGER / program), *before, url, f"{to}.{SPACE}"]
        command = ["ip", "netns", "exec", place, *command, caller, str(ROUNDS)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.running.append((caller, to, subprocess.Popen(command, **pipes)))

    def mcp(self, caller: str, transport: str, path: str, to: str) -> None:
        self.start(caller, "mcp-1", "client.py", transport, path=path, to=to)

    def modern(self, caller: str) -> None:
        self.start(caller, "mcp-2", "client_2.py", path="/mcp", to="modern")

    def a2a(self, caller: str, binding: str, version: str) -> None:
        to = "speaker" if binding == "GRPC" else "writer"
        self.start(caller, "a2a-grpc", "client_a2a.py", binding, version, path="", to=to)

    def a2a_0(self, caller: str) -> None:
        self.start(caller, "a2a-0", "client_a2a_0.py", path="", to="elder")

    def seen(self) -> collections.Counter:
        """What they say that they called, by caller, server, what, and how it ended for them."""
        seen: collections.Counter = collections.Counter()
        for caller, to, process in self.running:
            out, wrong = process.communicate(timeout=90)
            assert process.returncode == 0, (caller, to, wrong[-3000:])
            seen.update((caller, to, *one) for one in json.loads(out))
        return seen


def batch(proxy, caller: str, path: str) -> list[int]:
    """A session with one batch, whose calls end in another order than they were made; the ids as they were answered."""
    pod, fields = proxy.world.kubelet.pod(f"books-{caller}"), dict(HEADERS)

    def send(*messages: dict, whole: bool = False) -> tuple[int, dict, dict]:
        body = json.dumps(messages if whole else messages[0]).encode()
        return proxy.ask(f"batches.{SPACE}", path, "POST", caller=pod, body=body, **fields)

    def message(number: int | None, method: str, **params: object) -> dict:
        made = {"jsonrpc": "2.0", "method": method, "params": params}
        return made if number is None else made | {"id": number}

    def call(number: int, tool: str, **more: str) -> dict:
        return message(number, "tools/call", name=tool, arguments={"call": f"{caller}-{tool}", **more})

    about = {"name": caller, "version": "1"}
    begun = send(message(0, "initialize", protocolVersion=BATCHES, capabilities={}, clientInfo=about))
    assert begun[0] == 200, begun
    fields |= {"mcp-session-id": begun[1]["mcp-session-id"], "mcp-protocol-version": BATCHES}
    assert send(message(None, "notifications/initialized"))[0] == 202
    # Names of tools are labels once the server has listed them.
    assert send(message(9, "tools/list"))[0] == 200
    status, _, body = send(
        call(1, "slow", until=f"{caller}-fast"), call(2, "fail"), message(3, "ping"), call(4, "refuse"),
        message(None, "notifications/cancelled", requestId=77), call(5, "nobody-has"),
        message(6, "prompts/get", name="none"), call(7, "fast"), message(8, "tools/list"), whole=True,
    )  # fmt: skip
    assert status == 200, body
    if isinstance(body, list):
        return [answer["id"] for answer in body]
    lines = [line.removeprefix("data:") for line in body["text"].splitlines() if line.startswith("data:")]
    return [json.loads(line)["id"] for line in lines if line.strip()]


def call_all(proxy) -> collections.Counter:
    """Every caller at once, over each transport; what the SDKs say of it."""
    clients = Clients(proxy)
    for caller in CALLERS:
        clients.mcp(caller, "http", "/mcp", "tools")
    for caller in ("parent", "atenet-egress"):
        clients.mcp(caller, "sse", "/sse", "tools")
    for caller in ("owned", "stranger"):
        clients.mcp(caller, "http", "/mcp", "batches")
    for caller in ("parent", "stranger"):
        clients.modern(caller)
        clients.a2a(caller, "JSONRPC", "1.0")
    clients.a2a("parent", "HTTP+JSON", "1.0")
    clients.a2a("stranger", "HTTP+JSON", "0.3")
    clients.a2a("other", "GRPC", "1.0")
    clients.a2a("stranger", "GRPC", "0.3")
    for caller in ("parent", "atenet-egress"):
        clients.a2a_0(caller)
    for caller in ("other", "owned", "atenet-egress"):
        answered = batch(proxy, caller, "/mcp")
        assert sorted(answered) == list(range(1, 9)) and answered.index(1) > answered.index(7), answered
        assert sorted(batch(proxy, caller, "/array")) == list(range(1, 9))
    return clients.seen()


class Books:
    """What the servers have written."""

    def __init__(self, books: dict[str, pathlib.Path]) -> None:
        self.rows = [
            json.loads(line) | {"to": name} for name, book in books.items() for line in book.read_text().splitlines()
        ]
        assert all(row["client"] in CALLERS for row in self.rows), self.rows[:5]

    def calls(self) -> collections.Counter:
        """As clients say it: calls of tools, subscriptions, and the methods of A2A."""
        return collections.Counter(
            (row["client"], row["to"], row["name"] or row["method"], row["error"])
            for row in self.rows
            if row["how"] != "batch" and (row["method"] in SAID or row["to"] in AGENTS)
        )

    def shown(self) -> collections.Counter:
        """As those say it who look on: names and codes as they were sent, each call of a batch by itself."""
        return collections.Counter(
            (CALLERS[row["client"]], f"{row['to']}.{SPACE}", "a2a" if row["to"] in AGENTS else "mcp", row["method"],
             row["name"], row["error"])
            for row in self.rows
        )  # fmt: skip

    def series(self) -> collections.Counter:
        """As the metrics count it."""
        return collections.Counter(
            (ROUTES[row["to"]], CALLERS[row["client"]], row["method"], tool_label(row), label(row["error"]))
            for row in self.rows
        )

    def lines(self) -> collections.Counter:
        """As the access log has it, but for batches."""
        return collections.Counter(
            # A post is answered by a 202; its answer comes later.
            (row["client"], row["to"], row["method"], row["name"], "" if row["how"] == "posted" else row["error"])
            for row in self.rows
            if row["how"] != "batch"
        )

    def in_batches(self) -> collections.Counter:
        return collections.Counter((row["client"], row["to"]) for row in self.rows if row["how"] == "batch")

    def tools_but(self, client: str, names: set[str]) -> int:
        """How often a client has called tools of the tool server that are not these."""
        wanted = (client, "tools", "tools/call")
        calls = [row for row in self.rows if (row["client"], row["to"], row["method"]) == wanted]
        return sum(row["name"] not in names for row in calls)

    def edges(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Calls and errors by caller and route."""
        calls, errors = collections.Counter(), collections.Counter()
        for (route, caller, _, _, error), count in self.series().items():
            calls[caller, route] += count
            errors[caller, route] += count if error else 0
        return {edge: (count, errors[edge]) for edge, count in calls.items()}


def tool_label(row: dict) -> str:
    """Of a tool that its server has listed its name, of others `other`; only they have one."""
    if row["method"] != "tools/call":
        return ""
    return row["name"] if row["name"] in TOOLS else "other"


def label(error: str) -> str:
    """Codes that are not JSON-RPC's own are counted together; no server here has any like a status of HTTP."""
    is_code = error.lstrip("-").isdigit() and not 300 <= int(error) < 600
    return "other" if is_code and not -32768 <= int(error) <= -32000 else error


def series(proxy) -> collections.Counter:
    """What the metrics have of the servers' routes."""
    found: collections.Counter = collections.Counter()
    for line in proxy.admin("/metrics")[1].splitlines():
        name, _, rest = line.partition("{")
        if name.endswith("_operation_duration_seconds_count") and f".{SPACE}" in rest:
            text, _, value = rest.rpartition("} ")
            labels = dict(part.split("=", 1) for part in text.split(","))
            get = lambda key: labels.get(key, '""').strip('"')  # noqa: E731, B023: used at once
            method = get("mcp_method_name") or get("a2a_method_name")
            found[get("route"), get("caller"), method, get("gen_ai_tool_name"), get("error_type")] += int(float(value))
    return found


def access_lines(proxy) -> list[dict]:
    """Those of calls at the servers, each with the pod that it came from."""
    names, found = {address: name for name, address in addresses(proxy).items()}, []
    for line in proxy.pod.containers[0].log.read_text().splitlines():
        read = json.loads(line) if line.startswith("{") else {}
        if read.get("target") == "access" and f".{SPACE}" in read["route"] and "rpc_method" in read:
            read["from"] = names[read["peer"].rpartition(":")[0]]
            read["to"] = read["route"].split(".")[0]
            found.append(read)
    return found


def differ(seen: dict, expected: dict) -> dict:
    return {key: (seen.get(key), expected.get(key)) for key in {*seen, *expected} if seen.get(key) != expected.get(key)}


def same(what: str, seen: dict, expected: dict) -> None:
    assert seen == expected, (what, differ(seen, expected))


@scenario
def every_call_once(world: World) -> None:
    """sight: real clients and servers of every kind: metrics, log, graph and live calls are the servers' own counts"""
    books = stage(world)
    proxy = world.proxy()
    until(lambda: whose(proxy) == CALLERS, 30, lambda: whose(proxy))
    # A server of gRPC answers nothing else.
    for name in SERVERS.keys() - {"speaker"}:
        until(lambda n=name: proxy.ask(f"{n}.{SPACE}", "/healthz")[0] == 200, 30, lambda n=name: proxy.explain(n, "/"))
    with Calls(proxy.pod) as calls, Tap(world.program, proxy.pod) as tap:
        said = call_all(proxy)
        # A server sees a moment later that a client has left.
        until(lambda: Books(books).calls() == said, 10, lambda: differ(Books(books).calls(), said))
        written = Books(books)
        counted(world, proxy, written)
        shown(proxy, written, calls, tap)


def counted(world: World, proxy, written: "Books") -> None:
    expected = written.series()
    until(lambda: series(proxy) == expected, 20, lambda: (series(proxy) - expected, expected - series(proxy)))
    # Lines are written a moment later.
    until(lambda: sum(line["calls"] for line in access_lines(proxy)) >= len(written.rows), 20, proxy.log)
    lines = access_lines(proxy)
    logged(lines, written)
    graph(proxy, written)
    count = sum(expected.values())
    world.notes.append(f"# {count} calls, {len(expected)} series, {len(lines)} lines of the access log")


def shown(proxy, written: Books, calls: Calls, tap: Tap) -> None:
    """Those who looked on have seen the same calls, and saw none twice: what comes after them is the next one."""
    last = json.dumps({"jsonrpc": "2.0", "method": "last"}).encode()

    def has_come(seen) -> bool:
        # Again and again: whose server answers before its body has come is no call.
        proxy.ask(f"tools.{SPACE}", "/healthz", "POST", body=last, content_type="application/json")
        return any(call.get("method") == "last" for call in seen())

    for name, seen in (("/calls", calls.seen), ("tap", tap.seen)):
        until(lambda s=seen: has_come(s), 20, lambda s=seen: s()[-3:])
        same(name, told([call for call in seen() if call.get("method") != "last"], f".{SPACE}"), written.shown())
    found = addresses(proxy)
    peers = {(call["peer"].rpartition(":")[0], call["caller"]) for call in calls.seen() if call["method"] != "last"}
    assert peers == {(found[name], label) for name, label in CALLERS.items()}, (peers, found)


def whose(proxy) -> dict[str, str]:
    """Who each caller is for the proxy, by its address."""
    asked, found = f"/explain?host=tools.{SPACE}&path=/mcp&from=", addresses(proxy)
    return {name: json.loads(proxy.admin(asked + at)[1]).get("caller", "unknown") for name, at in found.items()}


def addresses(proxy) -> dict[str, str]:
    return {name: proxy.world.kubelet.pod(f"books-{name}").address for name in CALLERS}


def logged(lines: list[dict], written: Books) -> None:
    """Each call has its line, with its pod, its Agent, and how it ended; each batch one line with how many it made."""

    def said(line: dict) -> tuple[str, ...]:
        return line["from"], line["to"], line["rpc_method"], line.get("tool", ""), line.get("rpc_error", "")

    same("lines", collections.Counter(said(line) for line in lines if line["calls"] == 1), written.lines())
    batches: collections.Counter = collections.Counter()
    for line in lines:
        if line["calls"] > 1:
            batches[line["from"], line["to"]] += line["calls"]
    same("batches", batches, written.in_batches())
    callers = {(line["from"], line["caller"], line.get("caller_by")) for line in lines}
    assert callers == {(n, c, "pod" if c != "unknown" else None) for n, c in CALLERS.items()}, callers


def graph(proxy, written: Books) -> None:
    """The graph's edges have the same counts, and say what is undeclared and what unused; so do the metrics."""
    edges = [e for e in json.loads(proxy.admin("/graph")[1])["edges"] if f".{SPACE}" in e["to"]]
    seen = {(edge["from"], edge["to"]): (edge["calls"], edge["errors"]) for edge in edges if edge["calls"]}
    same("edges", seen, written.edges())
    # Nobody knows which calls of the gateway are of the Agent behind it.
    hosted = [(edge["to"], edge["state"]) for edge in edges if edge["from"] == f"{SPACE}/hosted"]
    assert sorted(hosted) == [(f"batches.{SPACE}", "declared"), (f"tools.{SPACE}", "declared")], edges
    assert len(edges) == len(seen) + len(hosted), edges
    words = {(edge["from"], edge["to"]): (edge["unusedTools"], edge["undeclaredTools"]) for edge in edges}
    tools = ROUTES["tools"]
    assert words.pop((CALLERS["parent"], tools)) == (["idle"], ["fail", "other", "refuse"]), edges
    assert words.pop((CALLERS["owned"], tools)) == (["idle"], ["fail", "other", "refuse", "slow"]), edges
    assert set(map(str, words.values())) == {"([], [])"}, words
    dot = proxy.admin("/graph?format=dot")[1]
    for (caller, route), (calls, errors) in written.edges().items():
        node = next((f"{SPACE}/{name}" for name in AGENTS if route == ROUTES[name]), route)
        [line] = [line for line in dot.splitlines() if f'"{caller}" -> "{node}"' in line]
        assert f"{calls} calls, {errors} errors" in line, (line, calls, errors)
    declared = {"parent": {"fast", "slow", "idle"}, "owned": {"fast", "idle"}}
    expected = {CALLERS[name]: written.tools_but(name, names) for name, names in declared.items()}
    # All calls of the one that does not say that it uses the server at all.
    expected[CALLERS["other"]] = written.edges()[CALLERS["other"], tools][0]
    counted = {
        caller: proxy.metric("kagent_proxy_undeclared_calls_total", caller=caller, route=tools) for caller in expected
    }
    assert counted == expected, (counted, expected)
    assert proxy.metric("kagent_proxy_undeclared_calls_total") == sum(expected.values()), counted
    metrics = proxy.admin("/metrics")[1].splitlines()
    declared_here = f'kagent_proxy_declared_edges{{caller="{SPACE}/'
    lines = [line for line in metrics if line.startswith(declared_here)]
    used = {edge for edge in written.edges() if edge != (CALLERS["other"], tools) and edge[0] != "unknown"}
    assert len(lines) == len(used), lines
    assert all(
        any(f'caller="{caller}",route="{route}",state="used"' in line for line in lines) for caller, route in used
    ), (lines, used)
