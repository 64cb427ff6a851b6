"""kagent-adk as an agent process, with the configuration that kagent's controller would have mounted.

The model is `python/stub_kagent.py` with a script. Knows no proxy and nothing of what the agent's tools are.
"""

import json
import pathlib
import urllib.request

from harness import Stage

ENV = {
    "KAGENT_NAMESPACE": "ml", "OPENAI_API_KEY": "none", "NO_PROXY": "*", "no_proxy": "*", "LOG_LEVEL": "warning"
}
TURN_SECONDS = 60


# What the script of the model calls: the host, and what the access log must show of it, method and path.
CALLS = {
    "short.tools": [("POST", "/mcp")],
    "legacy.tools": [("GET", "/sse"), ("POST", "/messages/")],
    "helper.ml": [("GET", "/.well-known/agent-card.json"), ("POST", "/")],
}


def agent(
    stage: Stage, interpreter: str, name: str, stub: int, tools: dict, card_url: str, port: int, more: dict | None = None
) -> None:
    """Starts `kagent-adk static` on this port, with `more` variables."""
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
    program = pathlib.Path(interpreter).with_name("kagent-adk")
    command = [program, "static", "--host", "127.0.0.1", "--port", port, "--filepath", folder]
    env = {**ENV, "KAGENT_NAME": name, "KAGENT_URL": f"http://127.0.0.1:{stub}", **(more or {})}
    stage.start(name, command, port, env)


def over_http(url: str, host: str | None, *tools: str) -> dict:
    """One MCP server over streamable HTTP, as an entry of `http_tools`."""
    headers = {"x-kagent-host": host} if host else {}
    return {"params": {"url": url, "headers": headers, "timeout": 30}, "tools": list(tools)}


def tools(urls: dict[str, str], headers: bool) -> dict:
    """The tool and remote-agent lists of a configuration."""
    sent = {host: {"x-kagent-host": host} if headers else {} for host in CALLS}
    host = "short.tools" if headers else None
    sse = {"url": urls["legacy.tools"] + "/sse", "headers": sent["legacy.tools"], "timeout": 30}
    remote = {"name": "ml__NS__helper", "url": urls["helper.ml"], "description": "h"}
    return {
        "http_tools": [over_http(urls["short.tools"] + "/mcp", host, "add")],
        "sse_tools": [{"params": sse, "tools": ["size"]}],
        "remote_agents": [{**remote, "headers": sent["helper.ml"]} if headers else remote],
    }


def turn(port: int, text: str) -> tuple[str, str]:
    """One message to an agent, in a context of its own; the state of its task, and what it said."""
    message = {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": text}]}
    body = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TURN_SECONDS) as answer:
        result = json.load(answer)["result"]
    parts = [part for artifact in result.get("artifacts", []) for part in artifact["parts"]]
    return result["status"]["state"], " ".join(part["text"] for part in parts if part["kind"] == "text")
