"""How each kind of server and of client is started. Environments come from the pins of `tests/clients`."""

import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "clients"))
import harness  # noqa: E402  the environments that the client suites stand on

# What a server answers to a session that it does not have, where its author may choose.
CHOOSES = {"python_1"}
PYTHON = {"python_1": "mcp-1", "python_2": "mcp-2"}


def server(kind: str, port: int, pod: str, marks: pathlib.Path, unknown: str) -> list:
    """The command of one pod."""
    arguments = [port, pod, marks, unknown]
    if kind in PYTHON:
        return [harness.python(PYTHON[kind]), HERE / "servers" / f"{kind}.py", *arguments]
    raise ValueError(f"there is no server {kind}; servers: {', '.join(SERVERS)}")


def agent(kind: str, url: str, host: str) -> list:
    """The command of a process with clients."""
    if kind in PYTHON:
        return [harness.python(PYTHON[kind]), HERE / "agents" / f"{kind}.py", url, host]
    raise ValueError(f"there is no client {kind}; clients: {', '.join(AGENTS)}")


SERVERS = ["python_1", "python_2"]
AGENTS = ["python_1", "python_2"]
