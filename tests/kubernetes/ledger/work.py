"""What agents of A2A's Python SDKs of every version share: their work, and who calls them.

The agent answers in three pieces. Told to wait, it does until its task is cancelled; told to break, it fails once it
has begun. What the SDKs name differently is given.
"""

import asyncio
from collections.abc import Callable

from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater

# By task: who has begun it.
OWNERS: dict[str, str] = {}


class Pieces(AgentExecutor):
    def __init__(self, new_task: Callable, text_part: Callable) -> None:
        self.new_task, self.text_part = new_task, text_part

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or self.new_task(context.message)
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
            await updater.add_artifact([self.text_part(str(number))], artifact_id="a", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def client_of(text: str, task: str) -> str:
    """Who calls: what it says, or whose the task is; one that nobody has is called like its client."""
    return text.split()[0] if text else OWNERS.get(task, task)


def client(message: dict) -> str:
    """The same, of a message of JSON-RPC."""
    params = message.get("params") or {}
    parts = (params.get("message") or {}).get("parts") or [{}]
    return client_of(parts[0].get("text", ""), params.get("taskId") or params.get("id", ""))
