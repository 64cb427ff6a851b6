#!/usr/bin/env python3
"""An agent of A2A's Python SDK 0.3 with a book of its calls: `agent_0.py PORT BOOK`; speaks 0.3 over JSON-RPC.

Its card has the URL that the variable URL says. `work.py` has its work.
"""

import os
import pathlib
import sys

import uvicorn
from a2a.server.apps import A2AStarletteApplication
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, Part, TextPart
from a2a.utils import new_task

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from ledger import Ledger  # noqa: E402
from work import Pieces, client  # noqa: E402


def text_part(text: str) -> Part:
    return Part(root=TextPart(text=text))


card = AgentCard(
    name="elder", description="pieces", version="1", url=os.environ["URL"], preferred_transport="JSONRPC",
    capabilities=AgentCapabilities(streaming=True),
    default_input_modes=["text"], default_output_modes=["text"], skills=[],
)  # fmt: skip
handler = DefaultRequestHandler(agent_executor=Pieces(new_task, text_part), task_store=InMemoryTaskStore())
app = Ledger(A2AStarletteApplication(agent_card=card, http_handler=handler).build(), sys.argv[2], client)
uvicorn.run(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
