#!/usr/bin/env python3
"""An agent of A2A's Python SDK 0.3 with a book of its calls: `agent_0.py PORT BOOK`; speaks 0.3 over JSON-RPC.

Its card has the URL that the variable URL says. It does as the agents of `pieces.py`.
"""

import asyncio
import os
import pathlib
import sys

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.apps import A2AStarletteApplication
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, Part, TextPart
from a2a.utils import new_task

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
from ledger import Ledger  # noqa: E402

# By task: who has begun it.
OWNERS: dict[str, str] = {}


class Pieces(AgentExecutor):
    """Answers in three pieces."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task(context.message)
        name, *told = context.get_user_input().split()
        OWNERS[task.id] = name
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        if told == ["breaks"]:
            raise RuntimeError(name)
        if told:
            await asyncio.Event().wait()
        for number in range(3):
            part = Part(root=TextPart(text=str(number)))
            await updater.add_artifact([part], artifact_id="a", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def client(message: dict) -> str:
    """Who calls: what it says, or whose the task is; one that nobody has is called like its client."""
    params = message.get("params") or {}
    parts = (params.get("message") or {}).get("parts") or [{}]
    task = params.get("id", "")
    return parts[0].get("text", "").partition(" ")[0] or OWNERS.get(task, task)


card = AgentCard(
    name="elder", description="pieces", version="1", url=os.environ["URL"], preferred_transport="JSONRPC",
    capabilities=AgentCapabilities(streaming=True),
    default_input_modes=["text"], default_output_modes=["text"], skills=[],
)  # fmt: skip
handler = DefaultRequestHandler(agent_executor=Pieces(), task_store=InMemoryTaskStore())
app = Ledger(A2AStarletteApplication(agent_card=card, http_handler=handler).build(), sys.argv[2], client)
uvicorn.run(app, host="0.0.0.0", port=int(sys.argv[1]), log_level="warning")
