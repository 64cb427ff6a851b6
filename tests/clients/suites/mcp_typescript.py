"""The official TypeScript MCP SDK on both sides, streamable HTTP and legacy SSE."""

from harness import Results, Stage, free_port, node, run_suite

PATHS = {"streamable": "/mcp", "sse": "/sse"}


def run(results: Results, stage: Stage, folder) -> None:
    port = free_port()
    stage.start("server", ["node", folder / "server.mjs", port], port)
    for transport, path in PATHS.items():
        proxy = stage.proxy({"tools.ns": port})
        client = ["node", folder / "client.mjs", transport]
        direct = stage.client(client, f"http://127.0.0.1:{port}{path}", "tools.ns")
        results.check(f"{transport} direct goes around", not proxy.lines(), proxy.lines())
        proxied = stage.client(client, f"{proxy.url}{path}", "tools.ns")
        results.compare(transport, direct, proxied)
        results.through(transport, proxy, "tools.ns", 10)


run_suite("mcp-typescript", lambda: node("ts"), run)
