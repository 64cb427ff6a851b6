"""A client of the Python MCP SDK 2.x that follows orders: `client_eras.py MODE HOST`. `../eras.py` has them."""

import asyncio
import contextlib
import json
import sys

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost

MODE, HOST = sys.argv[1:]
HEADERS = {"x-kagent-host": HOST}


class Orders:
    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.stack = stack

    async def connect(self, url: str) -> dict[str, object]:
        tries = 0
        while True:
            tries += 1
            opened = contextlib.AsyncExitStack()
            try:
                http = await opened.enter_async_context(httpx2.AsyncClient(headers=HEADERS, timeout=30))
                client = Client(streamable_http_client(url, http_client=http), mode=MODE)
                self.client = await opened.enter_async_context(client)
            except Exception as error:  # whatever keeps it from connecting
                print(tries, repr(error)[:200], file=sys.stderr)
                with contextlib.suppress(Exception):
                    await opened.aclose()
                await asyncio.sleep(0.02)  # between two tries
                continue
            self.stack.push_async_exit(opened)
            return {"tries": tries, "protocol": self.client.protocol_version}

    async def call(self, name: str) -> dict[str, object]:
        try:
            result = await self.client.call_tool(name, {"a": 2, "b": 3} if name == "add" else {})
        except Exception as error:  # what it is called differs by SDK
            print(repr(error)[:500], file=sys.stderr)
            return {"error": True}
        return {"told": bool(result.is_error), "text": result.content[0].text}

    async def listen(self) -> dict[str, object]:
        opened = self.client.listen(tools_list_changed=True)
        self.subscription = await self.stack.enter_async_context(opened)
        return {"honored": self.subscription.honored.tools_list_changed}

    async def change(self) -> dict[str, object]:
        return {"changed": type(await anext(self.subscription)).__name__ == "ToolsListChanged"}

    async def end(self) -> dict[str, object]:
        try:
            async for _ in self.subscription:
                pass
        except SubscriptionLost:
            return {"ended": "remote"}
        return {"ended": "graceful"}


async def main() -> None:
    async with contextlib.AsyncExitStack() as stack:
        orders = Orders(stack)
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            order, *rest = json.loads(line)
            print(json.dumps(await getattr(orders, order)(*rest)), flush=True)


asyncio.run(main())
