"""The official Python MCP SDK 2.x on both sides: 2026-07-28, the older protocol, and legacy SSE."""

from harness import HERE, Results, Stage, free_port, python, run_suite

RUNS = [("streamable-http", "auto", "/mcp"), ("streamable-http", "legacy", "/mcp"), ("sse", "legacy", "/sse")]


def run(results: Results, stage: Stage, interpreter: str) -> None:
    for transport, mode, path in RUNS:
        port = free_port()
        server = [interpreter, HERE / "python" / "server_mcp_2.py", transport, port]
        stage.start(f"server-{transport}-{mode}", server, port)
        proxy = stage.proxy({"tools.ns": port})
        client = [interpreter, HERE / "python" / "client_mcp_2.py", transport, mode]
        direct = stage.client(client, f"http://127.0.0.1:{port}{path}", "tools.ns")
        results.check(f"{transport} {mode} direct goes around", not proxy.lines(), proxy.lines())
        proxied = stage.client(client, f"{proxy.url}{path}", "tools.ns")
        results.compare(f"{transport} {mode}", direct, proxied)
        results.through(f"{transport} {mode}", proxy, "tools.ns", 8)


run_suite("mcp-python-2", lambda: python("mcp-2"), run)
