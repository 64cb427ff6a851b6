"""kagent-adk 0.10.4 as real agent processes: a parent calls two MCP servers and another agent.

The configuration has the shape that kagent's controller writes (`golden/kagent-0.10.0-rc3/written.json`):
with a proxy, every URL is the proxy's and `x-kagent-host` says whose. The model is a local stub with a
script, as is the controller's session and task store.
"""

import json
import urllib.request

from harness import HERE, Results, Stage, free_port, python, run_suite

ENV = {
    "KAGENT_NAMESPACE": "ml", "OPENAI_API_KEY": "none", "NO_PROXY": "*", "no_proxy": "*", "LOG_LEVEL": "warning"
}
# Route, what is behind it, and what the access log must show of it: method and path.
CALLS = {
    "short.tools": [("POST", "/mcp")],
    "legacy.tools": [("GET", "/sse"), ("POST", "/messages/")],
    "helper.ml": [("GET", "/.well-known/agent-card.json"), ("POST", "/")],
}


def agent(stage: Stage, interpreter: str, name: str, stub: int, tools: dict, card_url: str, port: int) -> None:
    """Starts `kagent-adk static` with a configuration as the controller would have mounted it."""
    folder = stage.folder / name
    folder.mkdir()
    model = {"type": "openai", "model": "stub", "base_url": f"http://127.0.0.1:{stub}/v1"}
    config = {"model": model, "description": name, "instruction": "Follow the script.", **tools}
    card = {
        "name": name, "description": name, "version": "1", "url": card_url, "protocolVersion": "0.3",
        "preferredTransport": "JSONRPC", "capabilities": {"streaming": True}, "skills": [],
        "defaultInputModes": ["text"], "defaultOutputModes": ["text"],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "agent-card.json").write_text(json.dumps(card))
    program = str(interpreter).replace("/bin/python", "/bin/kagent-adk")
    command = [program, "static", "--host", "127.0.0.1", "--port", port, "--filepath", folder]
    env = {**ENV, "KAGENT_NAME": name, "KAGENT_URL": f"http://127.0.0.1:{stub}"}
    stage.start(name, command, port, env)


def tools(urls: dict[str, str], headers: bool) -> dict:
    """The tool and remote-agent lists of a configuration."""
    sent = {host: {"x-kagent-host": host} if headers else {} for host in CALLS}
    http = {"url": urls["short.tools"] + "/mcp", "headers": sent["short.tools"], "timeout": 30}
    sse = {"url": urls["legacy.tools"] + "/sse", "headers": sent["legacy.tools"], "timeout": 30}
    remote = {"name": "ml__NS__helper", "url": urls["helper.ml"], "description": "h"}
    return {
        "http_tools": [{"params": http, "tools": ["add"]}],
        "sse_tools": [{"params": sse, "tools": ["size"]}],
        "remote_agents": [{**remote, "headers": sent["helper.ml"]} if headers else remote],
    }


def ask(port: int) -> dict:
    """One message to an agent; the state of its task and what it said."""
    message = {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": "go"}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        result = json.load(answer)["result"]
    parts = [part for artifact in result.get("artifacts", []) for part in artifact["parts"]]
    said = " ".join(part["text"] for part in parts if part["kind"] == "text")
    return {
        "state": result["status"]["state"],
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
