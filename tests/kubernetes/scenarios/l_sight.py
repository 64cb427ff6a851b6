"""Who calls what, on real pods: the caller by its pod, its tools by what it declares, counted as the server has seen it."""

import json

from api import until
from c_routes import agent, agent_service
from mcp_client import HEADERS, VERSION
from world import World, deployment, scenario, service

SPACE = "sight"
HOST = f"tools.{SPACE}"
# As labels say it.
ROUTE = f"{HOST}:8080"
SECONDS = "kagent_proxy_mcp_operation_duration_seconds_count"
CALLS = {"parent": 3, "sneaky": 2, "stranger": 1}


def uses(name: str, *tools: str) -> dict:
    server = {"kind": "Service", "apiGroup": "", "name": name, "toolNames": list(tools)}
    return {"type": "McpServer", "mcpServer": server}


def stage(world: World):
    """A tool server, an Agent that declares it, one that declares another one, and a pod that is no Agent's."""
    world.definitions()
    world.namespace(SPACE)
    marks = world.kubelet.folder / "sight-marks"
    marks.touch()
    tools = deployment(SPACE, "tools", "mcp-server:8080")
    [container] = tools["spec"]["template"]["spec"]["containers"]
    container["env"] = [{"name": "MARKS", "value": str(marks)}]
    labels = {"kagent.dev/mcp-service": "true"}
    world.apply(tools, service(SPACE, "tools", 8080, metadata={"labels": labels}))
    declared = {"parent": uses("tools", "count"), "sneaky": uses("idle")}
    for name, tool in declared.items():
        [made] = world.apply(agent(SPACE, name, tool))
        world.apply(deployment(SPACE, f"{name}-pod", "backend:8080"), agent_service(made, f"{name}-pod"))
    world.apply(deployment(SPACE, "stranger-pod", "backend:8080"), service(SPACE, "stranger", 8080, app="stranger-pod"))
    for name in ("tools", "stranger", *declared):
        world.wait_ready(SPACE, name)
    return world.proxy(), marks


def session(proxy, name: str) -> int:
    """One session from the pod of this name, with its calls; the calls that were answered."""
    pod, headers = proxy.world.kubelet.pod(f"{name}-pod"), dict(HEADERS)

    def send(method: str, params: dict, number: int | None) -> tuple[int, dict, dict]:
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        body = json.dumps(message if number is None else message | {"id": number}).encode()
        return proxy.ask(HOST, "/mcp", "POST", caller=pod, body=body, **headers)

    hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": name, "version": "1"}}
    begun: list = []

    def begins() -> bool:
        begun[:] = send("initialize", hello, 0)
        return begun[0] == 200

    until(begins, 30, lambda: f"{name} begins a session: {begun}; {proxy.explain(HOST, '/mcp')}")
    headers["mcp-session-id"] = begun[1]["mcp-session-id"]
    send("notifications/initialized", {}, None)
    answers = [
        send("tools/call", {"name": "count", "arguments": {"call": f"{name}-{n}"}}, n + 1) for n in range(CALLS[name])
    ]
    return sum(answer[0] == 200 for answer in answers)


@scenario
def callers(world: World) -> None:
    """sight: each call is counted once, by the Agent whose pod made it and the tool that it declares, as the server saw it"""
    proxy, marks = stage(world)
    known = lambda: json.loads(proxy.admin("/sight")[1])["edges"]  # noqa: E731
    until(lambda: any(edge["from"] == f"{SPACE}/parent" for edge in known()), 30, known)
    for name, calls in CALLS.items():
        assert session(proxy, name) == calls, name
    labels = {"route": ROUTE, "mcp_method_name": "tools/call", "gen_ai_tool_name": "count", "error_type": ""}
    callers = {"parent": f"{SPACE}/parent", "sneaky": f"{SPACE}/sneaky", "stranger": "unknown"}

    def counted() -> dict[str, float | None]:
        return {name: proxy.metric(SECONDS, caller=caller, **labels) for name, caller in callers.items()}

    until(lambda: counted() == CALLS, 20, lambda: (counted(), proxy.admin("/metrics")[1][:2000]))
    at_server = sum('"tools/call"' in line or "tools/call" in line for line in marks.read_text().splitlines())
    assert at_server == sum(CALLS.values()), (at_server, marks.read_text())

    def edges() -> dict[tuple[str, str], str]:
        return {(edge["from"], edge["to"]): edge["state"] for edge in known()}

    expected = {
        (f"{SPACE}/parent", ROUTE): "ok",
        (f"{SPACE}/sneaky", ROUTE): "undeclared",
        (f"{SPACE}/sneaky", f"idle.{SPACE}"): "unused",
        ("unknown", ROUTE): "ok",
    }
    until(lambda: expected.items() <= edges().items(), 20, edges)
    assert '"caller_by":"pod"' in proxy.pod.logs()
