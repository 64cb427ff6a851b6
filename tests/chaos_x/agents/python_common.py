"""What the clients of both Python SDKs share: orders in, events out, and a task for each session.

Each client is a task with a transport and a session of its own, so one that is torn down takes no other with it.
Knows no SDK: a client is made with a function that opens a session, and one that asks it.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable


def say(**what: object) -> None:
    print(json.dumps({**what, "at": time.time()}), flush=True)


def reason(error: BaseException) -> str:
    """The first cause in a tree of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]


class Client:
    def __init__(
        self,
        name: str,
        connect: Callable[["Client"], contextlib.AbstractAsyncContextManager],
        ask: Callable[[object, dict], Awaitable[tuple[str, str]]],
    ) -> None:
        self.name, self.connect, self.ask = name, connect, ask
        self.session: object = None
        self.closing = asyncio.Event()
        self.calls: set[asyncio.Task] = set()
        self.task = asyncio.create_task(self.live())

    async def live(self) -> None:
        """The life of one session, from `opened` to `ended`."""
        error, opened = "", False
        try:
            async with self.connect(self) as session:
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

    def heard(self, text: object) -> None:
        say(client=self.name, event="heard", text=str(text))

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


def arguments(order: dict) -> dict:
    """Those of the tool."""
    return {key: order[key] for key in ("client", "number", "gate", "announce")}


async def serve(connect: Callable, ask: Callable) -> None:
    """Follows the orders on standard input until it ends."""
    clients: dict[str, Client] = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        name = order["client"]
        if order["do"] == "open":
            clients[name] = Client(name, connect, ask)
        elif order["do"] == "close":
            clients[name].closing.set()
        else:
            clients[name].call(order)
    for client in clients.values():
        client.task.cancel()
    await asyncio.gather(*(client.task for client in clients.values()), return_exceptions=True)
