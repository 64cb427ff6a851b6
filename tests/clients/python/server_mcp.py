"""An MCP server of the official Python SDK: `server_mcp.py streamable-http|sse PORT [CALLS]`.

DNS rebinding protection is on and knows only the address the server listens on, so a proxy that
passes its own Host is refused. Each call of a tool is a line of the file CALLS, whatever becomes of it.
"""

import sys

from mcp.server.fastmcp import Context, FastMCP
from mcp.server.transport_security import TransportSecuritySettings

TRANSPORT, PORT = sys.argv[1], int(sys.argv[2])
CALLS = open(sys.argv[3], "a", buffering=1) if sys.argv[3:] else None


class Noting(FastMCP):
    """Notes every call before it is looked at."""

    async def call_tool(self, name: str, arguments: dict):
        if CALLS:
            CALLS.write(f"{name}\n")
        return await super().call_tool(name, arguments)


server = Noting(
    "pinned",
    host="127.0.0.1",
    port=PORT,
    transport_security=TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[f"127.0.0.1:{PORT}"],
        allowed_origins=[],
    ),
)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts, with a progress notification for each number, on the stream of the call.

    `ctx.report_progress` of 1.x sends them on the standalone stream, where they race with the result.
    """
    call = ctx.request_context
    for number in range(1, to + 1):
        await call.session.send_progress_notification(
            call.meta.progressToken, number, to, related_request_id=str(call.request_id)
        )
    return "counted"


@server.tool()
def size(text: str) -> str:
    """Gives a big argument back."""
    return text


server.run(transport=TRANSPORT)
