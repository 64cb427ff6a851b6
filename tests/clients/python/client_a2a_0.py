"""What an A2A client of the Python SDK 0.3 sees: `client_a2a_0.py URL HOST`, as JSON."""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory, create_text_message_object
from a2a.types import TaskArtifactUpdateEvent, TaskIdParams, TaskQueryParams, TaskStatusUpdateEvent

URL, HOST = sys.argv[1:]


def kind(update) -> str:
    """A short word for what a stream brought."""
    if isinstance(update, TaskStatusUpdateEvent):
        return update.status.state.value
    if isinstance(update, TaskArtifactUpdateEvent):
        return update.artifact.parts[0].root.text
    return "task"


async def main() -> None:
    seen: dict[str, object] = {}
    async with httpx.AsyncClient(headers={"x-kagent-host": HOST}, timeout=30) as http:
        card = await A2ACardResolver(http, URL).get_agent_card()
        seen["card name"] = card.name
        urls = [card.url, *(interface.url for interface in card.additional_interfaces)]
        seen["card urls"] = all(url.startswith(URL) for url in urls)

        async def send(text: str, streaming: bool):
            config = ClientConfig(streaming=streaming, httpx_client=http)
            client = ClientFactory(config).create(card)
            async for task, update in client.send_message(create_text_message_object(content=text)):
                yield client, task, update

        unary = [task async for _, task, _ in send("go", streaming=False)]
        seen["unary"] = unary[-1].status.state.value
        seen["unary parts"] = len(unary[-1].artifacts[0].parts)
        seen["stream"] = [kind(update) async for _, _, update in send("go", streaming=True)]
        # The client leaves the stream of a task that waits; the task goes on until it is cancelled.
        async for client, task, update in send("wait", streaming=True):
            if kind(update) == "working":
                break
        seen["left"] = (await client.get_task(TaskQueryParams(id=task.id))).status.state.value
        await client.cancel_task(TaskIdParams(id=task.id))
        seen["get state"] = (await client.get_task(TaskQueryParams(id=task.id))).status.state.value
        try:
            await client.get_task(TaskQueryParams(id="nobody"))
        except Exception as error:
            seen["error"] = type(error).__name__
    print(json.dumps(seen, sort_keys=True))


asyncio.run(asyncio.wait_for(main(), 60))
