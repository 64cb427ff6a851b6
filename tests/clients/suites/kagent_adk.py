"""kagent-adk 0.10.4 as real agent processes: a parent calls two MCP servers and another agent.

The configuration has the shape that kagent's controller writes (`golden/kagent-0.10.0-rc3/written.json`):
with a proxy, every URL is the proxy's and `x-kagent-host` says whose. The model is a local stub with a
script, as is the controller's session and task store.
"""

from adk import CALLS, agent, tools, turn
from harness import HERE, Results, Stage, free_port, python, run_suite

def ask(port: int) -> dict:
    """One message to an agent, and which tools it has heard of."""
    state, said = turn(port, "go")
    return {
        "state": state,
        "said": said,
        "mcp result": "5" in said.split("|")[0],
        "sse result": "over legacy sse" in said,
        "agent result": "heard: ping from the parent" in said,
    }


def run(results: Results, stage: Stage, interpreter: str) -> None:
    stub = free_port()
    stage.start("stub", [interpreter, HERE / "python" / "stub_kagent.py", stub], stub)
    ports = {host: free_port() for host in CALLS}
    for host, transport in (("short.tools", "streamable-http"), ("legacy.tools", "sse")):
        server = [interpreter, HERE / "python" / "server_mcp.py", transport, ports[host]]
        stage.start(host, server, ports[host])
    helper = ports["helper.ml"]
    agent(stage, interpreter, "helper", stub, {}, f"http://127.0.0.1:{helper}", helper)
    proxy = stage.proxy(ports)
    seen = {}
    for name, urls in (
        ("direct", {host: f"http://127.0.0.1:{port}" for host, port in ports.items()}),
        ("proxied", dict.fromkeys(CALLS, proxy.url)),
    ):
        port = free_port()
        lists = tools(urls, headers=name == "proxied")
        agent(stage, interpreter, name, stub, lists, f"http://127.0.0.1:{port}", port)
        seen[name] = ask(port)
        if name == "direct":
            results.check("direct goes around", not proxy.lines(), proxy.lines())
    results.compare("turn", seen["direct"], seen["proxied"])
    lines = proxy.lines()
    for host, calls in CALLS.items():
        for method, path in calls:
            good = [x for x in lines if (x["route"], x["method"], x["path"]) == (host, method, path)]
            good = [x for x in good if x["status"] in (200, 202)]
            results.check(f"log has {host} {method} {path}", bool(good), lines)
    results.through("mcp", proxy, "short.tools", 3)
    results.through("sse", proxy, "legacy.tools", 3)
    results.through("a2a", proxy, "helper.ml", 2)


run_suite("kagent-adk", lambda: python("adk"), run)
