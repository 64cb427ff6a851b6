#!/usr/bin/env python3
"""An agent of A2A's Python SDK with a book of its calls: `agent.py PORT BOOK`; speaks 1.0 over JSON-RPC.

Its card has the URL that the variable URL says.
"""

import os
import pathlib
import sys

import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface
from starlette.applications import Starlette

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from ledger import Ledger  # noqa: E402


class Pieces(AgentExecutor):
    """Answers in three pieces."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        for number in range(3):
            await updater.add_artifact([new_text_part(str(number))], artifact_id="a", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def client(message: dict) -> str:
    """Who calls: what it says, or the task that it asks for and that nobody has."""
    params = message.get("params") or {}
    parts = (params.get("message") or {}).get("parts") or [{}]
    return parts[0].get("text") or params.get("id", "")


card = AgentCard(
    name="writer", description="pieces", version="1",
    supported_interfaces=[AgentInterface(url=os.environ["URL"], protocol_binding="JSONRPC", protocol_version="1.0")],
    capabilities=AgentCapabilities(streaming=True),
    default_input_modes=["text"], default_output_modes=["text"], skills=[],
)  # fmt: skip
handler = DefaultRequestHandler(agent_executor=Pieces(), task_store=InMemoryTaskStore(), agent_card=card)
app = Starlette(routes=create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/"))
uvicorn.run(Ledger(app, sys.argv[2], client), host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
