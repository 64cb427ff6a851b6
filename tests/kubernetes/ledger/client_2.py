#!/usr/bin/env python3
"""A client of MCP's Python SDK 2.x that knows what it has called: `client_2.py URL HOST NAME ROUNDS`.

In the SDK's own mode, in which a server is asked for 2026-07-28 first. Prints, as JSON, each call of a tool, and
each subscription, with how it ended for the client: [tool or method, error].
"""

import asyncio
import json
import sys

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import Implementation

URL, HOST, NAME, ROUNDS = sys.argv[1:]
HEADERS = {"x-kagent-host": HOST}


async def ask(client: Client) -> list[list[str]]:
    seen: list[list[str]] = []

    async def call(tool: str, name: str, **more: str) -> None:
        try:
            answer = await client.call_tool(tool, {"call": name, **more})
            seen.append([tool, "tool_error" if answer.is_error else ""])
        except MCPError as error:
            seen.append([tool, str(error.code)])

    assert client.protocol_version == "2026-07-28", client.protocol_version
    await client.list_tools()
    try:
        await client.get_prompt("none")
    except MCPError:
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
        # A stream that it leaves, and a call that it takes back once the server has it: a tool tells that.
        async with client.listen(tools_list_changed=True):
            seen.append(["subscriptions/listen", "client_gone"])
        waiting = asyncio.create_task(call("wait", f"{turn}-wait"))
        await call("slow", f"{turn}-begun", until=f"{turn}-wait")
        waiting.cancel()
        seen.append(["wait", "client_gone"])
    return seen


async def main() -> list[list[str]]:
    async with httpx2.AsyncClient(headers=HEADERS, timeout=30) as http:
        about = Implementation(name=NAME, version="1")
        async with Client(streamable_http_client(URL, http_client=http), client_info=about) as client:
            return await ask(client)


print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
