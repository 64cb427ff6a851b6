#!/usr/bin/env python3
"""An MCP server of both eras, for pods: the Python SDK 2.x, with the tool `add`.

Usage: mcp_server_2.py PORT. It is healthy while the file that the variable GATE names is there. With OLD it answers
`server/discover` with 404, as a server does that knows no 2026-07-28. Told to end, it serves on for as many seconds as
LINGER says. Knows nothing of Kubernetes.
"""

import os
import pathlib
import sys
import threading

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

GATE = pathlib.Path(os.environ["GATE"])
LINGER = float(os.environ.get("LINGER", "0"))
server = MCPServer("pods", log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


class Gated:
    """The server, with a door for the kubelet."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        status = None
        if scope["type"] == "http":
            if scope["path"] == "/healthz":
                status = 200 if GATE.exists() else 503
            elif "OLD" in os.environ and dict(scope["headers"]).get(b"mcp-method") == b"server/discover":
                status = 404
        if status is None:
            return await self.app(scope, receive, send)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


class Lingering(uvicorn.Server):
    """Ends some time after it is told to."""

    def handle_exit(self, sig: int, frame: object) -> None:
        threading.Timer(LINGER, super().handle_exit, (sig, frame)).start()


# Its Host is the Service's name.
security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
app = Gated(server.streamable_http_app(transport_security=security))
Lingering(uvicorn.Config(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")).run()
