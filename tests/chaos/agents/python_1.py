"""Clients of the Python SDK 1.x in session mode: `python_1.py URL HOST`. `../README.md` has the commands.

Each client is a task with a transport and a session of its own, so one that is torn down takes no other with it.
"""

import asyncio
import json
import sys
import time
from datetime import timedelta

import mcp.types as types
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

URL, HOST = sys.argv[1:]


def say(**what: object) -> None:
    print(json.dumps({**what, "at": time.time()}), flush=True)


def reason(error: BaseException) -> str:
    """The first cause in a tree of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]


class Client:
    def __init__(self, name: str) -> None:
        self.name = name
        self.session: ClientSession | None = None
        self.closing = asyncio.Event()
        self.calls: set[asyncio.Task] = set()
        self.task = asyncio.create_task(self.live())

    async def live(self) -> None:
        """The life of one session, from `opened` to `ended`."""
        error, opened = "", False
        try:
            headers = {"x-kagent-host": HOST}
            async with streamablehttp_client(URL, headers=headers, timeout=timedelta(seconds=30)) as streams:
                async with ClientSession(*streams[:2], message_handler=self.heard) as session:
                    await session.initialize()
                    self.session, opened = session, True
                    say(client=self.name, event="opened")
                    await self.closing.wait()
        except BaseException as raised:  # whatever it was, this session is over
            error = reason(raised)
        self.session = None
        for call in self.calls:
            call.cancel()
        await asyncio.gather(*self.calls, return_exceptions=True)
        say(client=self.name, event="ended" if opened else "refused", error=error)

    async def heard(self, message: object) -> None:
        if isinstance(message, types.ServerNotification):
            if isinstance(message.root, types.LoggingMessageNotification):
                say(client=self.name, event="heard", text=str(message.root.params.data))

    def call(self, order: dict) -> None:
        task = asyncio.create_task(self.answer(order))
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    async def answer(self, order: dict) -> None:
        outcome, text = "error", "no session"
        try:
            async with asyncio.timeout(order["limit"]):
                if self.session is not None:
                    outcome, text = await self.ask(self.session, order)
        except TimeoutError:
            outcome, text = "unanswered", f"nothing for {order['limit']} s"
        except BaseException as raised:  # cancelled with its session, or refused
            outcome, text = "error", reason(raised)
        say(client=self.name, event="answer", number=order["number"], outcome=outcome, text=text)

    async def ask(self, session: ClientSession, order: dict) -> tuple[str, str]:
        if order["do"] == "list":
            names = [tool.name for tool in (await session.list_tools()).tools]
            return "result", " ".join(names)
        arguments = {"client": self.name, **{key: order[key] for key in ("number", "gate", "announce")}}
        result = await session.call_tool("count", arguments)
        text = result.content[0].text if result.content else ""
        return ("told" if result.isError else "result"), text


async def main() -> None:
    clients: dict[str, Client] = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        name = order["client"]
        if order["do"] == "open":
            clients[name] = Client(name)
        elif order["do"] == "close":
            clients[name].closing.set()
        else:
            clients[name].call(order)
    for client in clients.values():
        client.task.cancel()
    await asyncio.gather(*(client.task for client in clients.values()), return_exceptions=True)


asyncio.run(main())
