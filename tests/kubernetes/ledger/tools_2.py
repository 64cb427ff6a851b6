#!/usr/bin/env python3
"""A tool server of MCP's Python SDK 2.x with a book of its calls: `tools_2.py PORT BOOK`.

Over streamable HTTP at `/mcp`, with the revision 2026-07-28 and those before. `toolbox.py` has its tools.
"""

import pathlib
import sys

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import ElicitRequestURLParams

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import toolbox  # noqa: E402
from ledger import Ledger  # noqa: E402


def refusal(call: str) -> Exception:
    asked = ElicitRequestURLParams(mode="url", message=call, url="http://nowhere.invalid/", elicitation_id=call)
    return UrlElicitationRequiredError([asked])


server = MCPServer("ledger", log_level="ERROR")
toolbox.fill(server, refusal)
app = Ledger(server.streamable_http_app(host="0.0.0.0"), sys.argv[2], toolbox.client)
uvicorn.run(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
