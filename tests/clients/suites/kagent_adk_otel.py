"""Traces of kagent-adk 0.10.4 as agents write them, joined with a tool server's and another agent's by the proxy's spans.

All send to one receiver of OpenTelemetry's own messages, but for the tool server, whose spans its own SDK writes.
"""

import json
import pathlib
import time

from adk import agent, tools, turn
from harness import HERE, Results, Stage, free_port, python, run_suite

CLIENT, SERVER = 3, 2  # SpanKind


def spans(file: pathlib.Path) -> list[dict]:
    whole = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [json.loads(line) for line in whole]


def settled(file: pathlib.Path, seconds: float = 30) -> list[dict]:
    """All spans, once the root has come, which an agent sends last, and those of the proxy, which ends before."""
    deadline = time.monotonic() + seconds
    while True:
        seen = spans(file)
        servers = [one for one in seen if one["kind"] == SERVER and one["service"] != "edge" and not one["parent"]]
        if servers or time.monotonic() > deadline:
            return seen
        time.sleep(0.1)  # between two looks


def run(results: Results, stage: Stage, interpreters: tuple[str, str]) -> None:
    adk, otel = interpreters
    stub, otlp = free_port(), free_port()
    received, tool_spans = stage.folder / "received", stage.folder / "tool-spans"
    stage.start("receiver", [otel, HERE / "python" / "receiver_otel.py", otlp, received], otlp)
    stage.start("stub", [adk, HERE / "python" / "stub_kagent.py", stub], stub)
    ports = {host: free_port() for host in ("short.tools", "legacy.tools", "helper.ml")}
    short = [otel, HERE / "python" / "server_otel.py", ports["short.tools"], tool_spans]
    stage.start("short.tools", short, ports["short.tools"])
    legacy = [adk, HERE / "python" / "server_mcp.py", "sse", ports["legacy.tools"]]
    stage.start("legacy.tools", legacy, ports["legacy.tools"])
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    traced = {**collector, "OTEL_TRACING_ENABLED": "true", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    helper = ports["helper.ml"]
    agent(stage, adk, "helper", stub, {}, f"http://127.0.0.1:{helper}", helper, traced)
    proxy = stage.proxy(ports, env={**collector, "OTEL_SERVICE_NAME": "edge"})
    port = free_port()
    lists = tools(dict.fromkeys(ports, proxy.url), headers=True)
    agent(stage, adk, "parent", stub, lists, f"http://127.0.0.1:{port}", port, traced)
    state, said = turn(port, "go")
    results.check("the turn is done", state == "completed" and "heard: ping from the parent" in said, (state, said))
    # It sends the last ones at its end.
    proxy.process.terminate()
    proxy.process.wait(timeout=60)
    seen = settled(received)
    hops = [one for one in seen if one["service"] == "edge"]
    theirs = {one["span"]: one for one in seen if one["service"] != "edge"}
    named = {one["name"]: one for one in hops}
    call, send = named.get("tools/call add"), named.get("message/send") or named.get("message/stream")
    results.check("the call of the tool has a span", call is not None, sorted(named))
    results.check("the call of the agent has a span", send is not None, sorted(named))
    for name, hop in (("tool", call), ("agent", send)):
        client = theirs.get(hop["parent"]) if hop else None
        joined = client is not None and client["kind"] == CLIENT and client["trace"] == hop["trace"]
        results.check(f"{name}: it is the child of the agent's own span", joined, (hop, client))
    at_tool = [one for one in spans(tool_spans) if call and one["parent"] == call["span"]]
    results.check("tool: its server's span is the child", [one["trace"] for one in at_tool] == [call["trace"]], at_tool)
    at_agent = [one for one in theirs.values() if send and one["parent"] == send["span"] and one["kind"] == SERVER]
    results.check("agent: its span is the child", [one["trace"] for one in at_agent] == [send["trace"]], at_agent)
    results.check("both are of one trace", call["trace"] == send["trace"], (call, send))


run_suite("kagent-adk-otel", lambda: (python("adk"), python("otel")), run)
