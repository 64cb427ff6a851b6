"""An MCP server of the Python SDK 1.x that keeps state in its sessions: `python_1.py PORT POD MARKS UNKNOWN`.

What every server of this folder does is in `../README.md`. UNKNOWN is the status for a session id that it does
not have: 404, this SDK's own, or 400 with the words of its versions before 1.13.
"""

import asyncio
import json
import os
import signal
import sys
import weakref

import anyio
import uvicorn
from mcp.server.fastmcp import Context, FastMCP
from mcp.server.transport_security import TransportSecuritySettings
from python_common import ADDRESS, IS_LOCAL, POD, PORT, mark, opening
from starlette.responses import PlainTextResponse

UNKNOWN = sys.argv[4]
server = FastMCP(
    "chaos",
    transport_security=TransportSecuritySettings(
        enable_dns_rebinding_protection=IS_LOCAL, allowed_hosts=["127.0.0.1:*"], allowed_origins=[]
    ),
)
counters: weakref.WeakKeyDictionary[object, int] = weakref.WeakKeyDictionary()



@server.tool()
async def count(client: str, number: int, gate: str, announce: bool, ctx: Context) -> str:
    """Counts the calls of the session."""
    session = ctx.session
    counters[session] = counters.get(session, 0) + 1
    name = ctx.request_context.request.headers["mcp-session-id"]
    what = {"client": client, "number": number, "session": name, "counter": counters[session]}
    mark("began", **what)
    if announce:
        await session.send_log_message("info", f"stream {client} {number}")
    while gate and not os.path.exists(gate):
        await anyio.sleep(0.005)  # between two looks at the gate
    return json.dumps({"pod": POD, **what})


async def forget() -> None:
    """Every session goes as one does that was idle for too long."""
    sessions = server.session_manager._server_instances
    for name, transport in list(sessions.items()):
        sessions.pop(name, None)
        await transport.terminate()
    mark("forgot")


def application():
    inner = server.streamable_http_app()

    async def outer(scope, receive, send) -> None:
        name = dict(scope.get("headers", ())).get(b"mcp-session-id", b"").decode()
        if UNKNOWN == "400" and name and name not in server.session_manager._server_instances:
            answer = PlainTextResponse("Bad Request: No valid session ID provided", 400)
            await answer(scope, receive, send)
        else:
            await inner(scope, receive, send)

    return outer


async def main() -> None:
    tasks = set()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: tasks.add(asyncio.ensure_future(forget()))
    )
    config = uvicorn.Config(opening(application()), host=ADDRESS, port=PORT, log_level="warning")
    await uvicorn.Server(config).serve()


asyncio.run(main())
