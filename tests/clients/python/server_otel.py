"""An MCP server whose HTTP is traced by OpenTelemetry: `server_otel.py PORT FILE`, a span on each line of the file."""

import json
import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

PORT, FILE = int(sys.argv[1]), sys.argv[2]
server = FastMCP("traced", host="127.0.0.1", port=PORT)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


def told(span: ReadableSpan) -> str:
    parent = format(span.parent.span_id, "016x") if span.parent else ""
    trace_id, span_id = format(span.context.trace_id, "032x"), format(span.context.span_id, "016x")
    return json.dumps({"trace": trace_id, "span": span_id, "parent": parent, "kind": span.kind.name}) + "\n"


provider = TracerProvider()
out = open(FILE, "w", buffering=1)
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=told)))
trace.set_tracer_provider(provider)
uvicorn.run(OpenTelemetryMiddleware(server.streamable_http_app()), host="127.0.0.1", port=PORT)
