#!/usr/bin/env python3
"""A tool server of MCP's Python SDK 1.x with a book of its calls: `tools.py PORT BOOK`.

Over streamable HTTP at `/mcp` and over HTTP+SSE at `/sse`. `toolbox.py` has its tools.
"""

import pathlib
import sys

import uvicorn
from mcp.server.fastmcp import FastMCP
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp.types import ElicitRequestURLParams

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import toolbox  # noqa: E402
from ledger import Ledger  # noqa: E402


def refusal(call: str) -> Exception:
    asked = ElicitRequestURLParams(mode="url", message=call, url="http://nowhere.invalid/", elicitationId=call)
    return UrlElicitationRequiredError([asked])


server = FastMCP("ledger", host="0.0.0.0")
toolbox.fill(server, refusal)
app = server.streamable_http_app()
# Both transports in one application: the one that has a life of its own holds the other.
app.router.routes.extend(server.sse_app().routes)
app = Ledger(app, sys.argv[2], toolbox.client)
uvicorn.run(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
