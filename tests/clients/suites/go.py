"""Go: a2a-go v0.3.15, which follows the URLs of the card, and the MCP go-sdk v1.6.1, both sides each."""

from harness import Results, Stage, free_port, go, run_suite


def run(results: Results, stage: Stage, program: str) -> None:
    for server, clients in {"serve-a2a": ["a2a"], "serve-mcp": ["mcp", "sse"]}.items():
        port = free_port()
        stage.start(server, [program, server, port], port)
        for client in clients:
            proxy = stage.proxy({"go.ns": port})
            direct = stage.client([program, client], f"http://127.0.0.1:{port}", "go.ns")
            proxied = stage.client([program, client], proxy.url, "go.ns")
            results.compare(client, direct, proxied)
            results.through(client, proxy, "go.ns", 5)
            if client == "a2a":
                # After the card, the calls come to the proxy and not to the pod.
                calls = [line for line in proxy.lines() if line["method"] == "POST"]
                results.check("a2a calls follow the card to the proxy", len(calls) >= 4, calls)


run_suite("go", lambda: go("go"), run)
