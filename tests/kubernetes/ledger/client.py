#!/usr/bin/env python3
"""A client of MCP's Python SDK that knows what it has called: `client.py TRANSPORT URL HOST NAME ROUNDS`.

Prints, as JSON, each call of a tool with how it ended for the client: [tool, error].
"""

import asyncio
import json
import sys

from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import Implementation

TRANSPORT, URL, HOST, NAME, ROUNDS = sys.argv[1:]
HEADERS = {"x-kagent-host": HOST}


async def main() -> list[list[str]]:
    seen: list[list[str]] = []
    connect = sse_client if TRANSPORT == "sse" else streamablehttp_client
    async with connect(URL, headers=HEADERS) as streams:
        about = Implementation(name=NAME, version="1")
        async with ClientSession(*streams[:2], client_info=about) as session:

            async def call(tool: str, name: str, **more: str) -> None:
                try:
                    answer = await session.call_tool(tool, {"call": name, **more})
                    seen.append([tool, "tool_error" if answer.isError else ""])
                except McpError as error:
                    seen.append([tool, str(error.error.code)])

            await session.initialize()
            await session.list_tools()
            await session.send_ping()
            try:
                await session.get_prompt("none")
            except McpError:
                pass  # the server has no prompts
            for number in range(int(ROUNDS)):
                turn = f"{NAME}-{number}"
                for tool in ("fast", "fail", "refuse", f"nobody-has-{turn}"):
                    await call(tool, f"{turn}-{tool}")
                # The one that was called first is answered last.
                await asyncio.gather(
                    call("slow", f"{turn}-slow", until=f"{turn}-after"),
                    call("fail", f"{turn}-between"),
                    call("fast", f"{turn}-after"),
                )
    return seen


print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
