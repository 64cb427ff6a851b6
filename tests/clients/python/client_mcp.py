"""What an MCP client of the official Python SDK sees: `client_mcp.py TRANSPORT URL HOST`, as JSON."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client

TRANSPORT, URL, HOST = sys.argv[1:]
HEADERS = {"x-kagent-host": HOST}


async def main() -> None:
    connect = sse_client if TRANSPORT == "sse" else streamablehttp_client
    async with connect(URL, headers=HEADERS) as streams:
        async with ClientSession(*streams[:2]) as session:
            seen: dict[str, object] = {}
            hello = await session.initialize()
            seen["server"] = hello.serverInfo.name
            seen["protocol"] = hello.protocolVersion
            seen["session"] = TRANSPORT == "sse" or bool(streams[2]())
            seen["tools"] = sorted(tool.name for tool in (await session.list_tools()).tools)
            seen["add"] = (await session.call_tool("add", {"a": 2, "b": 3})).content[0].text
            steps: list[float] = []

            async def step(progress: float, _total: float | None, _text: str | None) -> None:
                steps.append(progress)

            counted = await session.call_tool("count", {"to": 50}, progress_callback=step)
            seen["count"] = counted.content[0].text
            seen["progress"] = steps == [float(n + 1) for n in range(50)]
            big = "x" * (3 * 1024 * 1024)
            answer = await session.call_tool("size", {"text": big})
            seen["big"] = answer.content[0].text == big
            wrong = await session.call_tool("add", {"a": "no"})
            seen["error"] = wrong.isError
            print(json.dumps(seen, sort_keys=True))


asyncio.run(asyncio.wait_for(main(), 60))
