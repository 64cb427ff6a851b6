"""Processes of a run, the marks that servers write, and what is remembered for a report.

Knows no MCP and no proxy. A process runs in a session of its own, so that its children end with it; it is ended by
the id it was started with, at the latest when the run ends.
"""

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import signal
import time
from collections.abc import Awaitable, Callable

# Between two looks at something that does not announce itself.
LOOK_SECONDS = 0.01
# How the lines of a story begin that are no client's.
WORLD = ("fault", "pod", "endpoints", "replica")


async def until(condition: Callable[[], object], seconds: float, what: str) -> object:
    """Waits for a condition, and returns what it gave. `what` is the reason if it never holds."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        await asyncio.sleep(LOOK_SECONDS)
    return found


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


class Story:
    """What happened, in order, for the report of a run that failed."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str]] = []

    def tell(self, text: str, at: float | None = None) -> None:
        self.lines.append((time.time() if at is None else at, text))

    def around(self, moment: float, whose: str, before: float = 3.0, after: float = 1.0) -> list[str]:
        """The lines near a moment that are about the world or one client, with the seconds since the run began."""
        lines = sorted(self.lines)
        start = lines[0][0] if lines else 0
        near = [line for line in lines if moment - before <= line[0] <= moment + after]
        mine = [line for line in near if line[1].startswith(WORLD) or whose in line[1]]
        return [f"{at - start:9.3f}  {text}" for at, text in mine]


class Process:
    """One program. Its output is kept in a file; its last words are the reason if it does not start."""

    def __init__(self, stage: "Stage", name: str, command: list) -> None:
        self.stage, self.name, self.command = stage, name, [str(part) for part in command]
        self.log = stage.folder / f"{name}.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, port: int | None = None, seconds: float = 60, **pipes: int) -> None:
        """Starts it, and waits until it listens if it has a port."""
        options = {"stdin": asyncio.subprocess.DEVNULL, **pipes}
        with open(self.log, "ab") as out:
            options.setdefault("stdout", out)
            self.process = await asyncio.create_subprocess_exec(
                *self.command, **options, stderr=out, start_new_session=True, limit=1 << 20
            )
        self.stage.running.append(self)
        end = time.monotonic() + seconds
        while port is not None and not await listens(port):
            if not self.runs or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not listen on {port}: {self.last_words()}")
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]

    def send(self, number: int, children: bool = False) -> None:
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if children else os.kill)(self.process.pid, number)

    async def kill(self) -> None:
        """Ends it at once, its children too."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # its own session; children may outlive it
            await self.process.wait()
            if self in self.stage.running:
                self.stage.running.remove(self)

    async def terminate(self, grace: float, number: int = signal.SIGTERM) -> bool:
        """As a kubelet does: a request to end, then the end. Whether it ended by itself."""
        self.send(number)
        try:
            async with asyncio.timeout(grace):
                await self.process.wait()
            ended = True
        except TimeoutError:
            ended = False
        await self.kill()
        return ended


class Stage:
    """All processes of a round, and their folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.running = folder, []
        self.story = Story()
        self.marks = Marks(folder / "marks")

    async def close(self) -> None:
        for process in list(self.running):
            await process.kill()


class Marks:
    """What the servers wrote, read as it is written. A mark is on the disk before its call goes on."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.all = path, []
        self.by_call: dict[tuple[str, int], list[dict]] = collections.defaultdict(list)
        path.touch()
        self._file = open(path, "rb")
        self._rest = b""

    def read(self) -> None:
        data = self._rest + self._file.read()
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            mark = json.loads(line)
            self.all.append(mark)
            if mark["step"] == "began":
                self.by_call[mark["client"], mark["number"]].append(mark)

    def of(self, client: str, number: int) -> list[dict]:
        self.read()
        return self.by_call.get((client, number), [])

    def forgot(self, pod: str) -> list[float]:
        """When a pod had forgotten its sessions."""
        self.read()
        return [mark["at"] for mark in self.all if mark["step"] == "forgot" and mark["pod"] == pod]

    def pod(self, client: str) -> str | None:
        """Where a client's last call was executed."""
        self.read()
        return next((m["pod"] for m in reversed(self.all) if m.get("client") == client and m["step"] == "began"), None)


async def within(seconds: float, work: Awaitable, what: str) -> object:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise TimeoutError(f"{what}: not within {seconds} s") from None
