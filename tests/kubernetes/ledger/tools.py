#!/usr/bin/env python3
"""A tool server of MCP's Python SDK with a book of its calls: `tools.py PORT BOOK`.

Over streamable HTTP at `/mcp` and over HTTP+SSE at `/sse`. Tools: `fast`; `slow`, which answers once the call that it
names has been answered; `fail`, whose result says that it has failed; `refuse`, a JSON-RPC error; `idle`, for nobody.
"""

import asyncio
import collections
import pathlib
import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp.types import ElicitRequestURLParams

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from ledger import Ledger  # noqa: E402

server = FastMCP("ledger", host="0.0.0.0")
ended: collections.defaultdict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)


@server.tool()
async def fast(call: str) -> str:
    """Answers at once."""
    ended[call].set()
    return call


@server.tool()
async def slow(call: str, until: str) -> str:
    """Answers after another call."""
    await ended[until].wait()
    return call


@server.tool()
async def fail(call: str) -> str:
    """Fails."""
    raise ValueError(call)


@server.tool()
async def refuse(call: str) -> str:
    """Answers with an error of JSON-RPC."""
    raise UrlElicitationRequiredError(
        [ElicitRequestURLParams(mode="url", message=call, url="http://nowhere.invalid/", elicitationId=call)]
    )


@server.tool()
async def idle(call: str) -> str:
    """Is never called."""
    return call


def client(message: dict) -> str:
    return ((message.get("params") or {}).get("clientInfo") or {}).get("name", "")


app = server.streamable_http_app()
# Both transports in one application: the one that has a life of its own holds the other.
app.router.routes.extend(server.sse_app().routes)
uvicorn.run(Ledger(app, sys.argv[2], client), host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
