"""What agents of A2A's Python SDK 1.x share: which operation a request is, their card, and their handler.

`work.py` has their work.
"""

from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryPushNotificationConfigStore, InMemoryTaskStore
from a2a.types import AgentCapabilities, AgentCard, AgentInterface
from work import Pieces, client_of

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
        agent_executor=Pieces(new_task_from_user_message, new_text_part), task_store=InMemoryTaskStore(), agent_card=made,
        push_config_store=InMemoryPushNotificationConfigStore(),
    )  # fmt: skip
