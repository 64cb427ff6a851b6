"""The tools of the servers that keep books, for the FastMCP of MCP's Python SDK 1.x and for the MCPServer of 2.x.

`fast`; `slow`, which answers once the call that it names has been answered; `fail`, whose result says that it has
failed; `refuse`, a JSON-RPC error; `idle`, for nobody; `wait`, which never answers.
"""

import asyncio
import collections


def client(message: dict) -> str:
    """Who calls: what `initialize` says, or since 2026-07-28 each request."""
    params = message.get("params") or {}
    said = params.get("clientInfo") or (params.get("_meta") or {}).get("io.modelcontextprotocol/clientInfo")
    return (said or {}).get("name", "")


def fill(server, refusal) -> None:
    """Gives the server its tools. `refusal` makes the error of a call."""
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
        raise refusal(call)

    @server.tool()
    async def idle(call: str) -> str:
        """Is never called."""
        return call

    @server.tool()
    async def wait(call: str) -> str:
        """Never answers, and tells that it was called."""
        ended[call].set()
        await asyncio.Event().wait()
        return call
