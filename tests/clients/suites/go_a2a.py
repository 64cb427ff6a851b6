"""Go: a2a-go v2, which speaks A2A 1.0, on both sides: JSON-RPC and REST by the URLs of its card, and gRPC."""

from harness import Results, Stage, free_port, go, run_suite

HOST = "go.ns"


def compared(results: Results, stage: Stage, client: list, port: int, target: int | str, least: int) -> None:
    name, proxy = client[-1], stage.proxy({HOST: target})
    direct = stage.client(client, f"http://127.0.0.1:{port}", HOST)
    results.check(f"{name} direct goes around", not proxy.lines(), proxy.lines())
    results.compare(name, direct, stage.client(client, proxy.url, HOST))
    # The card, if it is one that it follows, and four calls: send, stream and two gets.
    results.through(name, proxy, HOST, least)
    calls = {line.get("rpc_method") for line in proxy.lines()}
    results.check(f"{name} calls are seen", calls >= {"SendMessage", "SendStreamingMessage", "GetTask"}, calls)


def run(results: Results, stage: Stage, program: str) -> None:
    port, grpc = free_port(), free_port()
    stage.start("serve", [program, "serve", port], port)
    stage.start("serve-grpc", [program, "serve-grpc", grpc], grpc)
    for binding in ("jsonrpc", "rest"):
        compared(results, stage, [program, binding], port, port, 5)
    compared(results, stage, [program, "grpc"], grpc, f"h2c://127.0.0.1:{grpc}", 4)


run_suite("go-a2a", lambda: go("go_a2a"), run)
