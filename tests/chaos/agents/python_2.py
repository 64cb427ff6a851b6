"""Clients of the Python SDK 2.x in session mode: `python_2.py URL HOST`. `../README.md` has the orders."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import httpx2
import mcp_types as types
from mcp.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client
from python_common import Client, arguments, serve

URL, HOST = sys.argv[1:]


@contextlib.asynccontextmanager
async def connect(client: Client) -> AsyncIterator[SdkClient]:
    async def heard(message: object) -> None:
        if isinstance(message, types.LoggingMessageNotification):
            client.heard(message.params.data)
        elif isinstance(message, types.ProgressNotification):
            client.heard(message.params.progress_token)

    timeout = httpx2.Timeout(30, read=300)
    async with httpx2.AsyncClient(headers={"x-kagent-host": HOST}, timeout=timeout) as http:
        transport = streamable_http_client(URL, http_client=http)
        info = types.Implementation(name="mcp", version="0.1.0", title=client.name)
        async with SdkClient(transport, mode="legacy", message_handler=heard, client_info=info) as session:
            yield session


async def ask(session: SdkClient, order: dict) -> tuple[str, str]:
    if order["do"] == "list":
        # Every order is one request.
        tools = (await session.list_tools(cache_mode="bypass")).tools
        return "result", " ".join(tool.name for tool in tools)
    result = await session.call_tool("count", arguments(order))
    text = result.content[0].text if result.content else ""
    return ("told" if result.is_error else "result"), text


asyncio.run(serve(connect, ask))
