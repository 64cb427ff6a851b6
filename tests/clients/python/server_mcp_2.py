"""An MCP server of the Python SDK 2.x: `server_mcp_2.py streamable-http|sse PORT`.

It answers the protocol of 2026-07-28 and the older ones. DNS rebinding protection knows only its own address.
"""

import sys

import anyio
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

TRANSPORT, PORT = sys.argv[1], int(sys.argv[2])
server = MCPServer("python-2", log_level="WARNING")
counts = {"waiting": 0, "cancelled": 0}


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts, with a progress notification for each number."""
    for number in range(1, to + 1):
        await ctx.report_progress(number, to)
    return "counted"


@server.tool()
def size(text: str) -> str:
    """Gives a big argument back."""
    return text


@server.tool()
async def wait() -> str:
    """Waits until it is cancelled."""
    counts["waiting"] += 1
    try:
        await anyio.sleep_forever()
    finally:
        counts["cancelled"] += 1


@server.tool()
def waits() -> str:
    """How many waits began, and how many ended."""
    return f"{counts['waiting']} {counts['cancelled']}"


security = TransportSecuritySettings(
    enable_dns_rebinding_protection=True, allowed_hosts=[f"127.0.0.1:{PORT}"], allowed_origins=[]
)
server.run(TRANSPORT, host="127.0.0.1", port=PORT, transport_security=security)
