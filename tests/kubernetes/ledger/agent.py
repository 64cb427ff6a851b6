#!/usr/bin/env python3
"""An agent of A2A's Python SDK 1.x with a book of its calls: `agent.py PORT BOOK`.

Speaks 1.0 over JSON-RPC, and over HTTP+JSON both 1.0 and 0.3. Its card has the URL that the variable URL says.
"""

import os
import pathlib
import sys

import uvicorn
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from starlette.applications import Starlette
from starlette.routing import Route

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import pieces  # noqa: E402
from ledger import Ledger, operation  # noqa: E402
from work import client  # noqa: E402

URL = os.environ["URL"]
card = pieces.card(
    (URL, "JSONRPC", "1.0"), (f"{URL}rest", "HTTP+JSON", "1.0"), (f"{URL}elder", "HTTP+JSON", "0.3")
)  # fmt: skip
handler = pieces.handler(card)


def rest(version: str, prefix: str) -> list[Route]:
    """Without those for tenants, which take every path."""
    named = pieces.Named(handler, version, operation)
    made = create_rest_routes(named, path_prefix=prefix, enable_v0_3_compat=version == "0.3")
    return [route for route in made if isinstance(route, Route)]


routes = create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/")
routes += rest("1.0", "/rest") + rest("0.3", "/elder")
app = Ledger(Starlette(routes=routes), sys.argv[2], client)
uvicorn.run(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
