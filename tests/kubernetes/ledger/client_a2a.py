#!/usr/bin/env python3
"""A client of A2A's Python SDK that knows what it has called: `client_a2a.py URL HOST NAME ROUNDS`.

Prints, as JSON, each call with how it ended for the client: [method, error].
"""

import asyncio
import json
import sys

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.helpers.proto_helpers import new_text_message
from a2a.types import GetTaskRequest, Role, SendMessageRequest
from a2a.utils.errors import TaskNotFoundError

URL, HOST, NAME, ROUNDS = sys.argv[1:]


async def main() -> list[list[str]]:
    seen: list[list[str]] = []
    async with httpx.AsyncClient(headers={"x-kagent-host": HOST}, timeout=30) as http:
        card = await A2ACardResolver(http, URL).get_agent_card()
        for number in range(int(ROUNDS)):
            for streaming, method in ((False, "SendMessage"), (True, "SendStreamingMessage")):
                config = ClientConfig(streaming=streaming, httpx_client=http)
                client = ClientFactory(config).create(card)
                message = new_text_message(NAME, role=Role.ROLE_USER)
                events = [event async for event in client.send_message(SendMessageRequest(message=message))]
                assert len(events) > (1 if streaming else 0), (number, events)
                seen.append([method, ""])
            try:
                await client.get_task(GetTaskRequest(id=NAME))
            except TaskNotFoundError:
                seen.append(["GetTask", "-32001"])
    return seen


print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
