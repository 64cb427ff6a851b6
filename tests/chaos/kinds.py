"""How each kind of server and of client is started. Environments come from the pins of `tests/clients`."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
import harness  # noqa: E402  the environments that the client suites stand on

# What a server answers to a session that it does not have, where its author may choose.
CHOOSES = ("python_1", "ts")
PYTHON = {"python_1": "mcp-1", "python_2": "mcp-2"}
GO = {"go_161": "go.mod", "go_180": "go_180.mod"}
# A server that drops a session after so many seconds without a request; `tests/clients/rust/src/chaos.rs` says so.
IDLE_SECONDS = {"rmcp": 4.0}
# Clients that give their GET stream up for good at its second broken end, whatever came between but a clean one.
# Only the death of the proxy itself breaks it so.
FRAGILE = ("python_1", "python_2")
# Clients of one process share their connections.
SHARES = ("ts_1", "ts_2")
SERVERS = ["python_1", "python_2", "ts", "go_161", "go_180", "rmcp", "kmcp"]
AGENTS = ["python_1", "python_2", "ts_1", "ts_2", "go_161", "go_180", "rmcp"]


def server(kind: str, port: int, pod: str, marks: pathlib.Path, unknown: str) -> list:
    """The command of one pod."""
    arguments = [port, pod, marks, unknown]
    if kind in PYTHON:
        return [harness.python(PYTHON[kind]), HERE / "servers" / f"{kind}.py", *arguments]
    if kind in GO:
        return [harness.go(HERE / "go", GO[kind]), "serve", *arguments]
    if kind == "ts":
        return ["node", harness.node(HERE / "node") / "server.mjs", *arguments]
    if kind == "rmcp":
        return [harness.rust("rust"), "chaos", *arguments[:3]]
    if kind == "kmcp":
        stdio = harness.go(HERE / "go", GO["go_180"])
        return [harness.python("mcp-1"), HERE / "servers" / "kmcp.py", *arguments[:3], stdio]
    raise ValueError(f"there is no server {kind}; servers: {', '.join(SERVERS)}")


def agent(kind: str, url: str, host: str) -> list:
    """The command of a process with clients."""
    if kind in PYTHON:
        return [harness.python(PYTHON[kind]), HERE / "agents" / f"{kind}.py", url, host]
    if kind in GO:
        return [harness.go(HERE / "go", GO[kind]), "clients", url, host]
    if kind == "rmcp":
        return [harness.rust("rust"), "clients", url, host]
    if kind in ("ts_1", "ts_2"):
        return ["node", harness.node(HERE / "node") / "clients.mjs", kind[-1], url, host]
    raise ValueError(f"there is no client {kind}; clients: {', '.join(AGENTS)}")
