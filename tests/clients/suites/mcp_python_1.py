"""The official Python MCP SDK 1.28 on both sides, streamable HTTP and legacy SSE."""

from harness import HERE, Results, Stage, free_port, python, run_suite

PATHS = {"streamable-http": "/mcp", "sse": "/sse"}


def run(results: Results, stage: Stage, interpreter: str) -> None:
    for transport, path in PATHS.items():
        port = free_port()
        server = [interpreter, HERE / "python" / "server_mcp.py", transport, port]
        stage.start(f"server-{transport}", server, port)
        proxy = stage.proxy({"tools.ns": port})
        client = [interpreter, HERE / "python" / "client_mcp.py", transport]
        direct = stage.client(client, f"http://127.0.0.1:{port}{path}", "tools.ns")
        proxied = stage.client(client, f"{proxy.url}{path}", "tools.ns")
        results.compare(transport, direct, proxied)
        results.through(transport, proxy, "tools.ns", 5)


run_suite("mcp-python-1", lambda: python("mcp-1"), run)
