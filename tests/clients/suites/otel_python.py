"""Traces of OpenTelemetry's Python SDK on both sides, joined by the spans that the proxy sends to a receiver of it."""

import json
import pathlib

from harness import HERE, Results, Stage, free_port, python, run_suite


def lines(file: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def run(results: Results, stage: Stage, interpreter: str) -> None:
    port, otlp = free_port(), free_port()
    theirs, ours = stage.folder / "server-spans", stage.folder / "proxy-spans"
    stage.start("receiver", [interpreter, HERE / "python" / "receiver_otel.py", otlp, ours], otlp)
    stage.start("server", [interpreter, HERE / "python" / "server_otel.py", port, theirs], port)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    proxy = stage.proxy({"tools.ns": port}, env=env | {"OTEL_SERVICE_NAME": "edge"})
    seen = stage.client([interpreter, HERE / "python" / "client_otel.py"], f"{proxy.url}/mcp", "tools.ns")
    requests = len(proxy.lines())
    # It sends the last ones at its end.
    proxy.process.terminate()
    proxy.process.wait(timeout=60)
    results.check("the calls are answered", (seen["add"], seen["error"]) == ("5", True), seen)
    clients = {span["span"]: span for span in seen["spans"] if span["kind"] == "CLIENT"}
    hops = {span["span"]: span for span in lines(ours)}
    servers = [span for span in lines(theirs) if span["kind"] == "SERVER"]
    results.check("one span for each request", len(hops) == requests == len(clients) > 4, (hops, clients))
    joined = {hop["parent"] for hop in hops.values() if clients.get(hop["parent"], {}).get("trace") == hop["trace"]}
    results.check("each is the child of another client's span", joined == set(clients), (hops, clients))
    behind = {span["parent"] for span in servers if hops.get(span["parent"], {}).get("trace") == span["trace"]}
    results.check("each is the parent of a server's span", behind == set(hops), (hops, servers))
    traces = {span["trace"] for span in [*seen["spans"], *hops.values(), *servers]}
    results.check("all are one trace", len(traces) == 1, traces)
    named = [hop for hop in hops.values() if hop["name"] == "tools/call add"]
    errors = [hop["attributes"].get("error.type") for hop in named]
    results.check("calls are named, and one failed", sorted(errors, key=str) == [None, "tool_error"], named)
    results.check("the service is named", {hop["service"] for hop in hops.values()} == {"edge"}, hops)


run_suite("otel-python", lambda: python("otel"), run)
