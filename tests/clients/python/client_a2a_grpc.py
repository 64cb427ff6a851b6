"""What an A2A client of the Python SDK 1.x sees over gRPC: `client_a2a_grpc.py VERSION URL HOST`, as JSON.

VERSION is that of A2A's protobuf service: 1.0 or 0.3. The card is the client's own, with URL in it.
"""

import asyncio
import json
import sys
import urllib.parse

import grpc
from a2a.client import ClientCallContext, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import new_text_message
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)

VERSION, URL, HOST = sys.argv[1:]
CONTEXT = {"service_parameters": {"x-kagent-host": HOST}}


def kind(event) -> str:
    """A short word for what a stream brought."""
    which = event.WhichOneof("payload")
    if which == "status_update":
        return TaskState.Name(event.status_update.status.state)
    if which == "artifact_update":
        return event.artifact_update.artifact.parts[0].text
    return which


async def main() -> None:
    seen: dict[str, object] = {}
    channel = grpc.aio.insecure_channel(urllib.parse.urlsplit(URL).netloc)
    card = AgentCard(
        name="own", version="1", capabilities=AgentCapabilities(streaming=True, extended_agent_card=True),
        supported_interfaces=[AgentInterface(url=URL, protocol_binding="GRPC", protocol_version=VERSION)],
    )  # fmt: skip

    def client(streaming: bool):
        config = ClientConfig(
            streaming=streaming, grpc_channel_factory=lambda _: channel, supported_protocol_bindings=["GRPC"]
        )
        return ClientFactory(config).create(card)

    def context() -> ClientCallContext:
        return ClientCallContext(**CONTEXT)

    def send(text: str, streaming: bool):
        message = new_text_message(text, role=Role.ROLE_USER)
        return client(streaming).send_message(SendMessageRequest(message=message), context=context())

    task = [event async for event in send("go", streaming=False)][-1].task
    seen["unary"] = TaskState.Name(task.status.state)
    seen["unary parts"] = len(task.artifacts[0].parts)
    seen["stream"] = [kind(event) async for event in send("go", streaming=True)]
    # The client leaves the stream of a task that waits, and comes back to it; the task goes on until it is cancelled.
    name = ""
    async for event in send("wait", streaming=True):
        name = name or event.task.id
        if kind(event) == "TASK_STATE_WORKING":
            break
    agent = client(True)
    again = agent.subscribe(SubscribeToTaskRequest(id=name), context=context())
    seen["subscribed"] = kind(await anext(again))
    left = await agent.get_task(GetTaskRequest(id=name), context=context())
    seen["left"] = TaskState.Name(left.status.state)
    await agent.cancel_task(CancelTaskRequest(id=name), context=context())
    seen["subscription ends"] = [kind(event) async for event in again][-1]
    got = await agent.get_task(GetTaskRequest(id=name), context=context())
    seen["get state"] = TaskState.Name(got.status.state)
    try:
        await agent.get_task(GetTaskRequest(id="nobody"), context=context())
    except Exception as error:
        seen["error"] = [type(error).__name__, str(error)]
    seen["card"] = (await agent.get_extended_agent_card(GetExtendedAgentCardRequest(), context=context())).name
    await channel.close()
    print(json.dumps(seen, sort_keys=True))


asyncio.run(asyncio.wait_for(main(), 60))
