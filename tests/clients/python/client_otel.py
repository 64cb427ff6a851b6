"""The spans of an MCP client whose HTTP is traced by OpenTelemetry: `client_otel.py URL HOST`, as JSON."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

URL, HOST = sys.argv[1:]
spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
HTTPXClientInstrumentor().instrument()


def told(span: ReadableSpan) -> dict:
    parent = format(span.parent.span_id, "016x") if span.parent else ""
    trace_id, span_id = format(span.context.trace_id, "032x"), format(span.context.span_id, "016x")
    return {"trace": trace_id, "span": span_id, "parent": parent, "kind": span.kind.name, "name": span.name}


async def main() -> None:
    with trace.get_tracer("agent").start_as_current_span("turn"):
        async with streamablehttp_client(URL, headers={"x-kagent-host": HOST}) as streams:
            async with ClientSession(*streams[:2]) as session:
                await session.initialize()
                answer = (await session.call_tool("add", {"a": 2, "b": 3})).content[0].text
                wrong = (await session.call_tool("add", {"a": "no"})).isError
    finished = [told(span) for span in spans.get_finished_spans()]
    print(json.dumps({"add": answer, "error": wrong, "spans": finished}))


asyncio.run(asyncio.wait_for(main(), 60))
