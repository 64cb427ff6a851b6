#!/usr/bin/env python3
"""A client of A2A's Python SDK 0.3 that knows what it has called: `client_a2a_0.py URL HOST NAME ROUNDS`.

Prints, as JSON, each call with how it ended for the client: [method, error].
"""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory, create_text_message_object
from a2a.client.errors import A2AClientHTTPError, A2AClientJSONRPCError
from a2a.types import TaskIdParams, TaskQueryParams, TaskState, TaskStatusUpdateEvent

URL, HOST, NAME, ROUNDS = sys.argv[1:]


async def working(stream) -> str:
    """The task of a stream that says that it works on it."""
    async for task, update in stream:
        if isinstance(update, TaskStatusUpdateEvent):
            assert update.status.state == TaskState.working, update
            return task.id
    raise AssertionError("the stream has ended")


async def main() -> list[list[str]]:
    seen: list[list[str]] = []
    async with httpx.AsyncClient(headers={"x-kagent-host": HOST}, timeout=30) as http:
        card = await A2ACardResolver(http, URL).get_agent_card()
        streaming, unary = (
            ClientFactory(ClientConfig(streaming=streams, httpx_client=http)).create(card) for streams in (True, False)
        )
        for _ in range(int(ROUNDS)):
            for client, method in ((unary, "message/send"), (streaming, "message/stream")):
                message = create_text_message_object(content=NAME)
                events = [event async for event in client.send_message(message)]
                assert len(events) > (1 if client is streaming else 0), events
                seen.append([method, ""])
            try:
                await unary.get_task(TaskQueryParams(id=NAME))
            except A2AClientJSONRPCError as error:
                seen.append(["tasks/get", str(error.error.code)])
            try:
                async for _ in streaming.send_message(create_text_message_object(content=f"{NAME} breaks")):
                    pass
            except A2AClientHTTPError:  # this SDK breaks off its response
                seen.append(["message/stream", "upstream_broke"])
            # A task that waits, and is cancelled. It leaves the stream, which has been answered.
            stream = streaming.send_message(create_text_message_object(content=f"{NAME} waits"))
            task = await working(stream)
            await unary.get_task(TaskQueryParams(id=task))
            await unary.cancel_task(TaskIdParams(id=task))
            await stream.aclose()
            seen += [["tasks/get", ""], ["tasks/cancel", ""], ["message/stream", ""]]
    return seen


print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
