"""Real clients, driven from here: which call when, what became of it, and a session opened anew after an error.

A process of `agents/` holds several clients and does what it is told, a line for each order and each event. Knows
the marks only to say where a client's session is.
"""

import asyncio
import contextlib
import dataclasses
import json
import random
import time

from processes import Process, Stage

# A call that takes longer has no answer. The longest wait that a fault brings is a server's start.
LIMIT_SECONDS = 10
OPEN_SECONDS = 60


@dataclasses.dataclass
class Call:
    """One request of a client, and what became of it."""

    client: str  # with its epoch: a name for each session
    number: int
    kind: str  # count or list
    began: float
    gate: str = ""
    outcome: str = ""  # result, told (isError), error, unanswered
    text: str = ""
    answered: float = 0.0

    def __str__(self) -> str:
        held = ", held" if self.gate else ""
        return f"{self.client} call {self.number} ({self.kind}{held})"


@dataclasses.dataclass
class Ledger:
    """What all clients of a round saw."""

    calls: list[Call] = dataclasses.field(default_factory=list)
    refused: list[tuple[float, str]] = dataclasses.field(default_factory=list)  # sessions that did not open
    torn: list[tuple[float, str]] = dataclasses.field(default_factory=list)  # and that ended by themselves
    deaf: list[tuple[float, str]] = dataclasses.field(default_factory=list)  # GET streams that stay silent
    opened: int = 0


class Agents:
    """A process with clients of one kind."""

    def __init__(self, stage: Stage, kind: str, command: list) -> None:
        self.stage, self.process = stage, Process(stage, f"clients-{kind}", command)
        self.clients: dict[str, Client] = {}

    async def start(self) -> None:
        await self.process.start(stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
        self._reading = asyncio.create_task(self._read())

    def order(self, **what: object) -> None:
        self.process.process.stdin.write(json.dumps(what).encode() + b"\n")

    async def _read(self) -> None:
        while line := await self.process.process.stdout.readline():
            event = json.loads(line)
            self.clients[event["client"].rpartition(".")[0]].take(event)
        for client in self.clients.values():
            client.take({"event": "ended", "client": client.name, "error": "its process ended", "at": time.time()})

    async def stop(self) -> None:
        self.process.process.stdin.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self.process.process.wait()
        self._reading.cancel()
        await self.process.kill()


class Client:
    """One client. Who holds `lock` decides what it does; its traffic takes it for each step."""

    def __init__(self, agents: Agents, base: str, ledger: Ledger, seed: str) -> None:
        self.agents, self.base, self.ledger = agents, base, ledger
        self.rotations = lambda: 0  # how often the session key was rotated
        self.rotation = 0  # when its session opened
        self.breaks = 0  # of its GET stream, since then
        self.pace = 0.4  # seconds between two steps, at most
        self.random = random.Random(seed)
        self.lock = asyncio.Lock()
        self.epoch, self.number = 0, 0
        self.broken = True
        self._opening: asyncio.Future | None = None
        self._calls: dict[int, tuple[Call, asyncio.Future]] = {}
        self._closing: asyncio.Future | None = None
        self.heard: set[str] = set()
        self._ponged = asyncio.Event()
        agents.clients[base] = self

    @property
    def name(self) -> str:
        return f"{self.base}.{self.epoch}"

    def _tell(self, text: str, at: float | None = None) -> None:
        self.agents.stage.story.tell(text, at)

    # === what its process says ===

    def take(self, event: dict) -> None:
        if event["client"] != self.name:
            return  # of a session that was given up
        what, at = event["event"], event["at"]
        if what == "answer":
            call, done = self._calls.pop(event["number"], (None, None))
            if call is not None:
                call.outcome, call.text, call.answered = event["outcome"], event["text"], at
                self.broken = self.broken or call.outcome in ("error", "unanswered")
                self._tell(f"{call}: {call.outcome} {call.text}", at)
                done.set_result(call)
        elif what == "pong":
            self._ponged.set()
        elif what == "heard":
            self.heard.add(event["text"])
        elif what in ("opened", "refused") and self._opening.done():
            pass  # too late
        elif what == "opened":
            self.ledger.opened += 1
            self._tell(f"{self.name} opened", at)
            self._opening.set_result(True)
        elif what == "refused":
            self.ledger.refused.append((at, f"{self.name}: {event['error']}"))
            self._tell(f"{self.name} is refused: {event['error']}", at)
            self._opening.set_result(False)
        elif self._closing is not None:
            if not self._closing.done():
                self._closing.set_result(True)
        else:
            self.broken = True
            self.ledger.torn.append((at, f"{self.name}: {event['error']}"))
            self._tell(f"{self.name} was torn down: {event['error']}", at)

    # === what it is made to do ===

    async def open(self) -> None:
        """A new session, whatever became of the one before; tried until there is one."""
        end = time.monotonic() + OPEN_SECONDS
        while True:
            opened = await self.connect()
            if opened and (await self.call()).outcome not in ("error", "unanswered"):
                return
            if opened:
                await self.close()
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} gets no session within {OPEN_SECONDS} s")
            await asyncio.sleep(0.1)  # the pace of a client that asks again

    async def connect(self) -> bool:
        """Asks once for a new session, and says whether there is one."""
        self.epoch, self.broken, self._closing = self.epoch + 1, False, None
        self.rotation, self.breaks = self.rotations(), 0
        self._opening = asyncio.get_running_loop().create_future()
        self.agents.order(do="open", client=self.name)
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                return await self._opening
        except TimeoutError:
            text = f"{self.name}: initialize has no answer within {LIMIT_SECONDS} s"
            self.ledger.refused.append((time.time(), text))
            self._tell(text)
            self.agents.order(do="close", client=self.name)
            return False

    async def close(self) -> None:
        """Ends the session, as a client that is done with it."""
        self._closing = asyncio.get_running_loop().create_future()
        self.agents.order(do="close", client=self.name)
        with contextlib.suppress(TimeoutError):  # a client that cannot even end is left behind
            async with asyncio.timeout(LIMIT_SECONDS):
                await self._closing

    def begin(self, kind: str = "count", gate: str = "", announce: bool = False) -> tuple[Call, asyncio.Future]:
        """A call that is under way; the future has it when it is answered."""
        self.number += 1
        call = Call(self.name, self.number, kind, time.time(), gate)
        done = asyncio.get_running_loop().create_future()
        self._calls[call.number] = (call, done)
        self.ledger.calls.append(call)
        self._tell(f"{call} begins", call.began)
        do = "list" if kind == "list" else "call"
        self.agents.order(
            do=do, client=self.name, number=call.number, gate=gate, announce=announce, limit=LIMIT_SECONDS
        )
        return call, done

    async def call(self, kind: str = "count", announce: bool = False) -> Call:
        call, done = self.begin(kind, announce=announce)
        try:
            async with asyncio.timeout(LIMIT_SECONDS + 10):
                return await done
        except TimeoutError:
            del self._calls[call.number]
            call.outcome, call.text, call.answered = "unanswered", "its client does not answer", time.time()
            self.broken = True
            return call

    async def awake(self) -> None:
        """Waits until its process has seen what its sockets have, such as their end."""
        for _ in range(2):  # what is there at once may be seen in any order
            self._ponged.clear()
            self.agents.order(do="ping", client=self.name)
            async with asyncio.timeout(LIMIT_SECONDS):
                await self._ponged.wait()

    async def whole(self) -> None:
        """Sees to it that there is a session that works."""
        if self.broken:
            await self.close()
            await self.open()

    async def step(self) -> None:
        """What a client does next in its traffic."""
        await self.whole()
        what = self.random.random()
        if what < 0.75:
            await self.call()
        elif what < 0.85:
            await self.call("list")
        elif what < 0.95:
            await asyncio.gather(self.call(), self.call(), self.call("list"))
        else:
            await self.close()
            await self.open()

    async def traffic(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            async with self.lock:
                await self.step()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.random.uniform(self.pace / 20, self.pace)):
                    await ends.wait()

    async def listens(self) -> bool:
        """Whether what a server sends outside of a call arrives: on the GET stream, which may be opening."""
        end = time.monotonic() + 15
        while time.monotonic() < end:
            await self.whole()
            call = await self.call(announce=True)
            word = f"stream {call.client} {call.number}"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    while word not in self.heard:
                        await asyncio.sleep(0.01)  # between two looks
                    return True
        return False
