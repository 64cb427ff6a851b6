"""An A2A agent of the Python SDK 1.x: `server_a2a_1.py PORT`; speaks 1.0 and 0.3, over JSON-RPC and HTTP+JSON.

It answers in pieces; told to wait, it waits until its task is cancelled.
"""

import asyncio
import sys

import uvicorn
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentCardSignature, AgentInterface
from starlette.applications import Starlette

PORT = int(sys.argv[1])
URL = f"http://127.0.0.1:{PORT}/"


class Pieces(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task
        if task is None:
            task = new_task_from_user_message(context.message)
            await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        if context.get_user_input() == "wait":
            await asyncio.Event().wait()
        for number in range(20):
            await updater.add_artifact([new_text_part(str(number))], artifact_id="a", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


interfaces = [
    AgentInterface(url=url, protocol_binding=binding, protocol_version=version)
    for binding, url in (("JSONRPC", URL), ("HTTP+JSON", URL + "rest"))
    for version in ("1.0", "0.3")
]
card = AgentCard(
    name="python", description="pieces", version="1", supported_interfaces=interfaces,
    capabilities=AgentCapabilities(streaming=True, extended_agent_card=True),
    default_input_modes=["text"], default_output_modes=["text"], skills=[],
)  # fmt: skip
extended = AgentCard()
extended.CopyFrom(card)
extended.name = "extended"
extended.signatures.append(AgentCardSignature(protected="e30", signature="eA"))
handler = DefaultRequestHandler(
    agent_executor=Pieces(), task_store=InMemoryTaskStore(), agent_card=card, extended_agent_card=extended
)
routes = create_agent_card_routes(card) + create_jsonrpc_routes(handler, "/", enable_v0_3_compat=True)
routes += create_rest_routes(handler, path_prefix="/rest", enable_v0_3_compat=True)
uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=PORT, log_level="warning")
