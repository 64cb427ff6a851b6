"""What agents of A2A's Python SDK 1.x share: their work, who calls them, and which operation a request is.

The agent answers in three pieces. Told to wait, it does until its task is cancelled; told to break, it fails once it
has begun.
"""

import asyncio

from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface

# What a handler's function is called in A2A 1.0 and in 0.3.
OPERATIONS = {
    "on_message_send": ("SendMessage", "message/send"),
    "on_message_send_stream": ("SendStreamingMessage", "message/stream"),
    "on_get_task": ("GetTask", "tasks/get"),
    "on_list_tasks": ("ListTasks", "tasks/list"),
    "on_cancel_task": ("CancelTask", "tasks/cancel"),
    "on_subscribe_to_task": ("SubscribeToTask", "tasks/resubscribe"),
    "on_create_task_push_notification_config": (
        "CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"),
    "on_get_task_push_notification_config": (
        "GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"),
    "on_list_task_push_notification_configs": (
        "ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"),
    "on_delete_task_push_notification_config": (
        "DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"),
}  # fmt: skip
# By task: who has begun it.
OWNERS: dict[str, str] = {}


class Pieces(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        task = context.current_task or new_task_from_user_message(context.message)
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
            await updater.add_artifact([new_text_part(str(number))], artifact_id="a", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


class Named:
    """A handler of requests that tells which operation each is, and who calls, before it answers."""

    def __init__(self, handler: DefaultRequestHandler, version: str, tell) -> None:
        self.handler, self.tell = handler, tell
        self.column = ("1.0", "0.3").index(version)

    def __getattr__(self, name: str):
        function = getattr(self.handler, name)
        if name not in OPERATIONS:
            return function

        def told(params, context):
            fields = {field.name for field in params.DESCRIPTOR.fields}
            text = params.message.parts[0].text if "message" in fields else ""
            owned = params.task_id if "task_id" in fields else getattr(params, "id", "")
            self.tell(OPERATIONS[name][self.column], client_of(text, owned))
            return function(params, context)

        return told


def client_of(text: str, task: str) -> str:
    """Who calls: what it says, or whose the task is; one that nobody has is called like its client."""
    return text.split()[0] if text else OWNERS.get(task, task)


def client(message: dict) -> str:
    """The same, of a message of JSON-RPC."""
    params = message.get("params") or {}
    parts = (params.get("message") or {}).get("parts") or [{}]
    return client_of(parts[0].get("text", ""), params.get("taskId") or params.get("id", ""))


def card(*interfaces: tuple[str, str, str]) -> AgentCard:
    """With an interface for each (URL, binding, version)."""
    return AgentCard(
        name="ledger", description="pieces", version="1",
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding=binding, protocol_version=version)
            for url, binding, version in interfaces
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=True),
        default_input_modes=["text"], default_output_modes=["text"], skills=[],
    )  # fmt: skip


def handler(made: AgentCard) -> DefaultRequestHandler:
    return DefaultRequestHandler(
        agent_executor=Pieces(), task_store=InMemoryTaskStore(), agent_card=made,
        push_config_store=InMemoryPushNotificationConfigStore(),
    )  # fmt: skip
