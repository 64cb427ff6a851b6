#!/usr/bin/env python3
"""An MCP server with sessions, for pods: the Python SDK's own, with a counter in each session.

Usage: mcp_server.py PORT. Tools: `count` says in which pod it runs and how often this session has called it; `tell`
sends a notification on the session's own stream; `hang` never answers. Every request is written to the file that
the variable MARKS names before it is looked at, one line of JSON each: what ran is counted there, however the pod
ends. Told to end, it serves on for as many seconds as the variable LINGER says. Knows nothing of Kubernetes but its
host name.
"""

import asyncio
import json
import os
import pathlib
import sys
import threading
import weakref

import uvicorn
from mcp.server.fastmcp import Context, FastMCP

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import asgi  # noqa: E402

NAME = os.environ.get("HOSTNAME", "server")
MARKS = os.open(os.environ["MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
LINGER = float(os.environ.get("LINGER", "0"))
server = FastMCP("tools", host="0.0.0.0")
counters: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@server.tool()
def count(call: str, ctx: Context) -> str:
    """Counts the calls of its session."""
    counters[ctx.session] = counters.get(ctx.session, 0) + 1
    return json.dumps({"pod": NAME, "count": counters[ctx.session]})


@server.tool()
async def tell(call: str, ctx: Context) -> str:
    """Tells the session's own stream."""
    await ctx.session.send_tool_list_changed()
    return json.dumps({"pod": NAME})


@server.tool()
async def hang(call: str) -> str:
    """Never answers."""
    await asyncio.Event().wait()
    return ""


class Marked:
    """The server, with a mark for each request and for each session that begins."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if await asgi.is_healthy(scope, send):
            return None
        session = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        body, again = await asgi.whole(scope, receive)
        asked = json.loads(body or b"{}")
        params = asked.get("params") or {}
        mark(
            what=asked.get("method") or scope["method"], session=session,
            call=(params.get("arguments") or {}).get("call"), client=params.get("clientInfo"),
        )  # fmt: skip

        async def answer(event: dict) -> None:
            if event["type"] == "http.response.start":
                begun = dict(event["headers"]).get(b"mcp-session-id", b"").decode()
                if begun and not session:
                    mark(what="begun", session=begun, call=None, client=params.get("clientInfo"))
            await send(event)

        await self.app(scope, again, answer)


def mark(**what) -> None:
    os.write(MARKS, (json.dumps({"pod": NAME} | what) + "\n").encode())


class Lingering(uvicorn.Server):
    """Ends some time after it is told to."""

    def handle_exit(self, sig: int, frame: object) -> None:
        threading.Timer(LINGER, super().handle_exit, (sig, frame)).start()


app = Marked(server.streamable_http_app())
config = uvicorn.Config(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
(Lingering if LINGER else uvicorn.Server)(config).run()
