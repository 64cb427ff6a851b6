"""gRPC over h2c with grpcio on both sides, and A2A's gRPC binding with the Python SDK 1.x, which also speaks 0.3.

What is refused, and what breaks off, must look like a failure of gRPC's own, with the reason where clients show it.
"""

import subprocess

from harness import HERE, Proxy, Results, Stage, free_port, python, run_suite

PYTHON = HERE / "python"


def h2c(port: int) -> str:
    return f"h2c://127.0.0.1:{port}"


class Servers:
    """Servers of both services, each with a port for cards."""

    def __init__(self, stage: Stage, interpreter: str) -> None:
        self.stage, self.interpreter = stage, interpreter

    def start(self) -> tuple[int, subprocess.Popen]:
        port, cards = free_port(), free_port()
        command = [self.interpreter, PYTHON / "server_grpc.py", port, cards]
        return port, self.stage.start(f"server-{port}", command, cards)


def refused(results: Results, stage: Stage, client: list, proxy: Proxy) -> None:
    """Calls that find nothing behind the proxy."""
    for host, code, reason in [
        ("dead.ns", "UNAVAILABLE", "no_ready_endpoint"),
        ("nobody.ns", "UNAVAILABLE", "unknown_target"),
        ("10.0.0.1", "INVALID_ARGUMENT", "bad_target"),
        ("-", "INVALID_ARGUMENT", "missing_target"),
    ]:
        seen = stage.client([*client, "Echo", "Count", "Chat"], proxy.url, host)
        for name, (got, *rest) in seen.items():
            good = got == code and rest[0].startswith(f"kagent-proxy: {reason}: ")
            good = good and rest[1].get("x-kagent-proxy-error") == reason
            results.check(f"{reason} {name}", good, (got, rest))
    lines = [line for line in proxy.lines() if line["outcome"] == "no_ready_endpoint"]
    good = len(lines) == 3 and all(line["status"] == 200 and line["grpc_status"] == 14 for line in lines)
    results.check("the log has reason and code", good, lines)


def run(results: Results, stage: Stage, interpreter: str) -> None:
    servers = Servers(stage, interpreter)
    port, _ = servers.start()
    direct_url = f"http://127.0.0.1:{port}"
    proxy = stage.proxy({"grpc.ns": h2c(port), "dead.ns": h2c(free_port())})

    client = [interpreter, PYTHON / "client_grpc.py"]
    direct = stage.client(client, direct_url, "grpc.ns")
    results.compare("bytes", direct, stage.client(client, proxy.url, "grpc.ns"))
    results.through("bytes", proxy, "grpc.ns", 150)

    for version in ("1.0", "0.3"):
        client = [interpreter, PYTHON / "client_a2a_grpc.py", version]
        own = stage.proxy({"agent.ns": h2c(port)})
        direct = stage.client(client, direct_url, "agent.ns")
        results.compare(f"a2a {version}", direct, stage.client(client, own.url, "agent.ns"))
        # Send, stream, a stream left, the stream of its task, two gets, a cancellation, the get of nobody, a card.
        results.through(f"a2a {version}", own, "agent.ns", 9)
        calls = {(line.get("rpc_method"), line.get("rpc_error")) for line in own.lines()}
        expected = {("SendMessage", ""), ("SendStreamingMessage", ""), ("GetTask", "NOT_FOUND"), ("CancelTask", "")}
        results.check(f"a2a {version} calls are seen", calls >= expected, calls)

    client = [interpreter, PYTHON / "client_grpc_refused.py"]
    refused(results, stage, client, proxy)
    direct = stage.client([*client, "Echo"], f"http://127.0.0.1:{free_port()}", "-")
    results.check("a dead backend direct is UNAVAILABLE too", direct["Echo"][0] == "UNAVAILABLE", direct)

    # A server that dies in the middle of a stream: an error each way, never an end.
    for name in ("direct", "proxied"):
        mortal, process = servers.start()
        url = f"http://127.0.0.1:{mortal}"
        if name == "proxied":
            url = stage.proxy({"mortal.ns": h2c(mortal)}).url
        seen = stage.client([*client, "Die"], url, "mortal.ns")
        process.wait(timeout=10)
        results.check(f"a stream that breaks off {name}", seen["Die"][0] in ("UNAVAILABLE", "INTERNAL"), seen)


run_suite("grpc-python", lambda: python("a2a-grpc"), run)
