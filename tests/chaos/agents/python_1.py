"""Clients of the Python SDK 1.x in session mode: `python_1.py URL HOST`. `../README.md` has the orders."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import timedelta

import mcp.types as types
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from python_common import Client, arguments, serve

URL, HOST = sys.argv[1:]


@contextlib.asynccontextmanager
async def connect(client: Client) -> AsyncIterator[ClientSession]:
    async def heard(message: object) -> None:
        notification = message.root if isinstance(message, types.ServerNotification) else None
        if isinstance(notification, types.LoggingMessageNotification):
            client.heard(notification.params.data)
        elif isinstance(notification, types.ProgressNotification):
            client.heard(notification.params.progressToken)

    headers = {"x-kagent-host": HOST}
    async with streamablehttp_client(URL, headers=headers, timeout=timedelta(seconds=30)) as streams:
        # Its own name and version; the title is for the servers' marks.
        info = types.Implementation(name="mcp", version="0.1.0", title=client.name)
        async with ClientSession(*streams[:2], message_handler=heard, client_info=info) as session:
            await session.initialize()
            yield session


async def ask(session: ClientSession, order: dict) -> tuple[str, str]:
    if order["do"] == "list":
        return "result", " ".join(tool.name for tool in (await session.list_tools()).tools)
    result = await session.call_tool("count", arguments(order))
    text = result.content[0].text if result.content else ""
    return ("told" if result.isError else "result"), text


asyncio.run(serve(connect, ask))
