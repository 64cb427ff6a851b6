"""What the servers of both Python SDKs share: where they listen, their marks, and a mark for each session they open.

Knows no SDK: it stands around an ASGI application. The client of a session is the title that its `initialize` gives.
"""

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable

PORT, POD, MARKS = int(sys.argv[1]), sys.argv[2], sys.argv[3]
# Pods of a cluster are not on loopback.
ADDRESS = os.environ.get("CHAOS_ADDRESS", "127.0.0.1")
IS_LOCAL = ADDRESS == "127.0.0.1"
marks = os.open(MARKS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


def mark(step: str, **what: object) -> None:
    os.write(marks, json.dumps({"pod": POD, "step": step, "at": time.time(), **what}).encode() + b"\n")
    os.fsync(marks)


def opening(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The application, with a mark for each session that begins, written before its client knows of it."""

    async def marked(scope: dict, receive: Callable, send: Callable) -> None:
        fields = dict(scope.get("headers", ()))
        if scope["type"] != "http" or scope["method"] != "POST" or b"mcp-session-id" in fields:
            return await app(scope, receive, send)
        body, event = b"", {"more_body": True}
        while event.get("more_body"):
            event = await receive()
            body += event.get("body", b"")
        kept = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> dict:
            return kept.pop() if kept else await receive()

        async def answer(event: dict) -> None:
            if event["type"] == "http.response.start":
                session = dict(event["headers"]).get(b"mcp-session-id", b"").decode()
                if session:
                    client = json.loads(body)["params"]["clientInfo"].get("title")
                    mark("opened", client=client, session=session)
            await send(event)

        await app(scope, again, answer)

    return marked
