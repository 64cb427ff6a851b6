"""An MCP server of the Python SDK 2.x that keeps state in its sessions: `python_2.py PORT POD MARKS UNKNOWN`.

What every server of this folder does is in `../README.md`. A session that it does not have is answered with 404.
"""

import asyncio
import json
import os
import signal

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from python_common import ADDRESS, IS_LOCAL, POD, PORT, mark, opening

server = MCPServer("chaos", log_level="WARNING")
counters: dict[str, int] = {}



@server.tool()
async def count(client: str, number: int, gate: str, announce: bool, ctx: Context) -> str:
    """Counts the calls of the session."""
    name = ctx.headers["mcp-session-id"]
    counters[name] = counters.get(name, 0) + 1
    what = {"client": client, "number": number, "session": name, "counter": counters[name]}
    mark("began", **what)
    if announce:
        await ctx.session.send_log_message("info", f"stream {client} {number}")
    while gate and not os.path.exists(gate):
        await anyio.sleep(0.005)  # between two looks at the gate
    return json.dumps({"pod": POD, **what})


async def forget() -> None:
    """Every session goes as one does that was idle for too long."""
    sessions = server.session_manager._server_instances
    for name, transport in list(sessions.items()):
        sessions.pop(name, None)
        counters.pop(name, None)
        await transport.terminate()
    mark("forgot")


async def main() -> None:
    tasks = set()
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGUSR1, lambda: tasks.add(asyncio.ensure_future(forget()))
    )
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=IS_LOCAL, allowed_hosts=["127.0.0.1:*"], allowed_origins=[]
    )
    app = opening(server.streamable_http_app(transport_security=security))
    await uvicorn.Server(uvicorn.Config(app, host=ADDRESS, port=PORT, log_level="warning")).serve()


asyncio.run(main())
