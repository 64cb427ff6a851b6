"""A pod as kmcp makes it: an adapter that has one stdio process for each session: `kmcp.py PORT POD MARKS SERVER`.

SERVER is started as `SERVER stdio POD MARKS SESSION`. The adapter behaves as the one in kmcp's pods (agentgateway 0.9)
where it counts: a session that it does not have is answered with 404 and plain text, a request is answered with an
event stream without event ids, and what dies takes its sessions along.
"""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

PORT, POD, MARKS, SERVER = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
# Pods of a cluster are not on loopback.
ADDRESS = os.environ.get("CHAOS_ADDRESS", "127.0.0.1")
# Longer than any message of these runs.
LINE_BYTES = 1 << 20
marks = os.open(MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def mark(step: str, **what: object) -> None:
    os.write(marks, json.dumps({"pod": POD, "step": step, "at": time.time(), **what}).encode() + b"\n")
    os.fsync(marks)


class Session:
    """A stdio process, and who waits for what it says."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(16)
        self.waiting: dict[object, asyncio.Queue] = {}
        self.standalone: asyncio.Queue | None = None

    async def start(self) -> None:
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        command = (SERVER, "stdio", POD, MARKS, self.name)
        self.process = await asyncio.create_subprocess_exec(*command, **pipes, limit=LINE_BYTES)
        self.reading = asyncio.create_task(self.read())

    async def read(self) -> None:
        while line := await self.process.stdout.readline():
            message = json.loads(line)
            queue = self.waiting.pop(message["id"], None) if "method" not in message else self.standalone
            if queue is not None:
                queue.put_nowait(line.strip())
        for queue in (*self.waiting.values(), self.standalone):
            if queue is not None:
                queue.put_nowait(None)  # it will say nothing more

    def send(self, body: bytes) -> None:
        self.process.stdin.write(body.replace(b"\n", b" ") + b"\n")

    async def end(self) -> None:
        sessions.pop(self.name, None)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


sessions: dict[str, Session] = {}


def events(queue: asyncio.Queue, once: bool) -> StreamingResponse:
    async def stream():
        while (message := await queue.get()) is not None:
            yield b"data: " + message + b"\n\n"
            if once:
                return

    return StreamingResponse(stream(), media_type="text/event-stream")


async def post(request: Request) -> Response:
    name, body = request.headers.get("mcp-session-id"), await request.body()
    message = json.loads(body)
    if name is None:
        if message.get("method") != "initialize":
            return PlainTextResponse("session header is required for non-initialize requests", 422)
        session = Session()
        await session.start()
        sessions[session.name] = session
        mark("opened", client=message["params"]["clientInfo"].get("title"), session=session.name)
    elif (session := sessions.get(name)) is None:
        return PlainTextResponse("Session not found", 404)
    if "id" not in message or "method" not in message:
        session.send(body)
        return Response(status_code=202)
    queue = session.waiting[message["id"]] = asyncio.Queue()
    session.send(body)
    response = events(queue, once=True)
    if name is None:
        response.headers["mcp-session-id"] = session.name
    return response


async def get(request: Request) -> Response:
    session = sessions.get(request.headers.get("mcp-session-id", ""))
    if session is None:
        return PlainTextResponse("Session not found", 404)
    session.standalone = asyncio.Queue()
    return events(session.standalone, once=False)


async def delete(request: Request) -> Response:
    session = sessions.get(request.headers.get("mcp-session-id", ""))
    if session is None:
        return PlainTextResponse("Session not found", 404)
    await session.end()
    return Response(status_code=202)


async def forget() -> None:
    """Every session goes, with its process."""
    await asyncio.gather(*(session.end() for session in list(sessions.values())))
    mark("forgot")


async def main() -> None:
    tasks = set()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: tasks.add(asyncio.ensure_future(forget()))
    )
    routes = [Route("/mcp", handler, methods=[method]) for method, handler in METHODS.items()]
    config = uvicorn.Config(
        Starlette(routes=routes), host=ADDRESS, port=PORT, log_level="warning", timeout_graceful_shutdown=1
    )
    await uvicorn.Server(config).serve()
    await asyncio.gather(*(session.end() for session in list(sessions.values())))


METHODS = {"POST": post, "GET": get, "DELETE": delete}
asyncio.run(main())
