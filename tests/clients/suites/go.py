"""Go: a2a-go v0.3.15, which follows the URLs of the card, also over gRPC, and the MCP go-sdk v1.6.1, both sides each."""

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
                # The server gives its answers no type, and the client asks for a task that is not there.
                counted = [line for line in proxy.metrics().splitlines() if "a2a_operation_duration_seconds_count{" in line]
                failed = [line for line in counted if line.endswith('error_type="-32001"} 1')]
                results.check("a2a errors are counted as such", len(failed) == 1, counted)

    port = free_port()
    stage.start("serve-a2a-grpc", [program, "serve-a2a-grpc", port], port)
    proxy = stage.proxy({"go.ns": f"h2c://127.0.0.1:{port}", "dead.ns": f"h2c://127.0.0.1:{free_port()}"})
    client = [program, "a2a-grpc"]
    direct = stage.client(client, f"http://127.0.0.1:{port}", "go.ns")
    results.check("a2a-grpc direct has a task", direct.get("same task") is True, direct)
    results.compare("a2a-grpc", direct, stage.client(client, proxy.url, "go.ns"))
    results.through("a2a-grpc", proxy, "go.ns", 4)
    for host, reason in {"dead.ns": "no_ready_endpoint", "nobody.ns": "unknown_target"}.items():
        seen = stage.client(client, proxy.url, host)
        good = seen.get("code") == "Unavailable" and f"kagent-proxy: {reason}: " in seen.get("message", "")
        results.check(f"a2a-grpc {reason}", good, seen)


run_suite("go", lambda: go("go"), run)
