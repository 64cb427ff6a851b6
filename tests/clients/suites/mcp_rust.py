"""The Rust MCP SDK, rmcp, on both sides over streamable HTTP."""

from harness import Results, Stage, free_port, run_suite, rust


def run(results: Results, stage: Stage, program: str) -> None:
    port = free_port()
    stage.start("server", [program, "server", port], port)
    proxy = stage.proxy({"tools.ns": port})
    direct = stage.client([program, "client"], f"http://127.0.0.1:{port}/mcp", "tools.ns")
    results.check("direct goes around", not proxy.lines(), proxy.lines())
    proxied = stage.client([program, "client"], f"{proxy.url}/mcp", "tools.ns")
    results.compare("streamable", direct, proxied)
    results.through("streamable", proxy, "tools.ns", 5)


run_suite("mcp-rust", lambda: rust("rust"), run)
