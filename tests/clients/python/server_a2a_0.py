"""An A2A agent of the Python SDK 0.3: `server_a2a_0.py PORT`.

It answers in pieces; told to wait, it waits until its task is cancelled.
"""

import asyncio
import sys

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.apps import A2AStarletteApplication
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, Part, TextPart
from a2a.utils import new_task

PORT = int(sys.argv[1])
URL = f"http://127.0.0.1:{PORT}/"


class Pieces(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task
        if task is None:
            task = new_task(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        if context.get_user_input() == "wait":
            await asyncio.Event().wait()
        for number in range(20):
            part = Part(root=TextPart(text=str(number)))
            await updater.add_artifact([part], artifact_id="a", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


card = AgentCard(
    name="python", description="pieces", version="1", url=URL, preferred_transport="JSONRPC",
    additional_interfaces=[AgentInterface(transport="JSONRPC", url=URL)],
    capabilities=AgentCapabilities(streaming=True),
    default_input_modes=["text"], default_output_modes=["text"], skills=[],
)  # fmt: skip
handler = DefaultRequestHandler(agent_executor=Pieces(), task_store=InMemoryTaskStore())
app = A2AStarletteApplication(agent_card=card, http_handler=handler).build()
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning")
