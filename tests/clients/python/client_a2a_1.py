"""What an A2A client of the Python SDK 1.x sees: `client_a2a_1.py BINDING VERSION URL HOST`, as JSON.

BINDING and VERSION choose the card's interface: JSONRPC or HTTP+JSON, 1.0 or 0.3 by the SDK's compatibility layer.
"""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import new_text_message
from a2a.types import (
    CancelTaskRequest,
    GetExtendedAgentCardRequest,
    GetTaskRequest,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskState,
)

BINDING, VERSION, URL, HOST = sys.argv[1:]


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
    async with httpx.AsyncClient(headers={"x-kagent-host": HOST}, timeout=30) as http:
        card = await A2ACardResolver(http, URL).get_agent_card()
        seen["card name"] = card.name
        urls = [interface.url for interface in card.supported_interfaces]
        seen["card urls"] = bool(urls) and all(url.startswith(URL) for url in urls)
        chosen = [
            interface
            for interface in card.supported_interfaces
            if (interface.protocol_binding, interface.protocol_version) == (BINDING, VERSION)
        ]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(chosen)

        async def send(text: str, streaming: bool):
            config = ClientConfig(
                streaming=streaming, httpx_client=http, supported_protocol_bindings=[BINDING]
            )
            client = ClientFactory(config).create(card)
            message = new_text_message(text, role=Role.ROLE_USER)
            async for event in client.send_message(SendMessageRequest(message=message)):
                yield client, event

        unary = [event async for _, event in send("go", streaming=False)]
        task = unary[-1].task
        seen["unary"] = TaskState.Name(task.status.state)
        seen["unary parts"] = len(task.artifacts[0].parts)
        seen["stream"] = [kind(event) async for _, event in send("go", streaming=True)]
        # The client leaves the stream of a task that waits, and comes back; the task goes on until it is cancelled.
        name = ""
        async for client, event in send("wait", streaming=True):
            name = name or event.task.id
            if kind(event) == "TASK_STATE_WORKING":
                break
        left = await client.get_task(GetTaskRequest(id=name))
        seen["left"] = TaskState.Name(left.status.state)
        again = client.subscribe(SubscribeToTaskRequest(id=name))
        seen["subscribed"] = kind(await anext(again))
        await client.cancel_task(CancelTaskRequest(id=name))
        seen["subscription ends"] = [kind(event) async for event in again][-1]
        got = await client.get_task(GetTaskRequest(id=name))
        seen["get state"] = TaskState.Name(got.status.state)
        try:
            await client.get_task(GetTaskRequest(id="nobody"))
        except Exception as error:
            seen["error"] = type(error).__name__
        extended = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
        seen["extended name"] = extended.name
        urls = [interface.url for interface in extended.supported_interfaces]
        seen["extended urls"] = bool(urls) and all(url.startswith(URL) for url in urls)
    print(json.dumps(seen, sort_keys=True))


asyncio.run(asyncio.wait_for(main(), 60))
