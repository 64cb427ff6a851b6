"""What a client of the Python MCP SDK 2.x sees: `client_mcp_2.py TRANSPORT MODE URL HOST`, as JSON.

MODE is the SDK's: `auto` asks for 2026-07-28 first, `legacy` opens with initialize.
"""

import asyncio
import json
import sys

import httpx2
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

TRANSPORT, MODE, URL, HOST = sys.argv[1:]
HEADERS = {"x-kagent-host": HOST}


async def look(client: Client) -> dict[str, object]:
    seen: dict[str, object] = {"protocol": client.protocol_version, "server": client.server_info.name}
    seen["tools"] = sorted(tool.name for tool in (await client.list_tools()).tools)

    async def call(name: str, arguments: dict, **options) -> str:
        return (await client.call_tool(name, arguments, **options)).content[0].text

    seen["add"] = await call("add", {"a": 2, "b": 3})
    steps: list[float] = []

    async def step(progress: float, _total: float | None, _text: str | None) -> None:
        steps.append(progress)

    seen["count"] = await call("count", {"to": 50}, progress_callback=step)
    seen["progress"] = steps == [float(n + 1) for n in range(50)]
    big = "x" * (256 * 1024)  # the SDK takes events of 1 MiB, and the result holds it twice
    seen["big"] = await call("size", {"text": big}) == big
    seen["error"] = (await client.call_tool("add", {"a": "no"})).is_error

    async def counts() -> list[int]:
        return [int(part) for part in (await call("waits", {})).split()]

    before = (await counts())[0]
    waiting = asyncio.create_task(call("wait", {}))
    while (await counts())[0] == before:
        pass
    waiting.cancel()
    while True:
        started, ended = await counts()
        if started == ended:
            break
    seen["cancel reaches the server"] = True
    return seen


async def main() -> None:
    if TRANSPORT == "sse":
        async with Client(sse_client(URL, headers=HEADERS), mode=MODE) as client:
            seen = await look(client)
    else:
        async with httpx2.AsyncClient(headers=HEADERS, timeout=30) as http:
            async with Client(streamable_http_client(URL, http_client=http), mode=MODE) as client:
                seen = await look(client)
    print(json.dumps(seen, sort_keys=True))


asyncio.run(asyncio.wait_for(main(), 60))
