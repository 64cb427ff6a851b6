#!/usr/bin/env python3
"""A client of A2A's Python SDK 1.x that knows what it has called: `client_a2a.py BINDING VERSION URL HOST NAME ROUNDS`.

BINDING is JSONRPC, HTTP+JSON or GRPC. Prints, as JSON, each call with how it ended for the client: [method, error].
"""

import asyncio
import contextlib
import json
import sys
import urllib.parse

import httpx
from a2a.client import A2ACardResolver, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.helpers.proto_helpers import new_text_message
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.errors import A2AError, MethodNotFoundError, TaskNotFoundError

BINDING, VERSION, URL, HOST, NAME, ROUNDS = sys.argv[1:]
HEADERS = {"x-kagent-host": HOST}
# How an error reads that says that there is no such task, and a stream that is left: in JSON-RPC its first event is
# the answer.
NOT_FOUND = {"JSONRPC": "-32001", "HTTP+JSON": "404", "GRPC": "NOT_FOUND"}[BINDING]
BROKEN = "-32603" if BINDING == "JSONRPC" else "UNKNOWN"
LEFT = "" if BINDING == "JSONRPC" else "client_gone"
# What operations of HTTP+JSON are called in 0.3; gRPC's have their own names in both.
OLD = {
    "SendMessage": "message/send",
    "SendStreamingMessage": "message/stream",
    "GetTask": "tasks/get",
    "CancelTask": "tasks/cancel",
    "SubscribeToTask": "tasks/resubscribe",
    "CreateTaskPushNotificationConfig": "tasks/pushNotificationConfig/set",
    "GetTaskPushNotificationConfig": "tasks/pushNotificationConfig/get",
}


class Agent:
    """The agent, on connections of its own."""

    def __init__(self, factory: ClientFactory, unary: ClientFactory, card: AgentCard) -> None:
        self.streaming, self.unary = factory.create(card), unary.create(card)

    def send(self, text: str, streaming: bool = True):
        request = SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))
        return (self.streaming if streaming else self.unary).send_message(request, context=context())


def context() -> ClientCallContext:
    # Headers of HTTP have it from their client.
    return ClientCallContext(service_parameters=HEADERS if BINDING == "GRPC" else {})


@contextlib.asynccontextmanager
async def connected():
    if BINDING == "GRPC":
        import grpc  # the environment of the others has none

        card = AgentCard(
            name="own", version="1", capabilities=AgentCapabilities(streaming=True, push_notifications=True),
            supported_interfaces=[AgentInterface(url=URL, protocol_binding=BINDING, protocol_version=VERSION)],
        )  # fmt: skip
        async with grpc.aio.insecure_channel(urllib.parse.urlsplit(URL).netloc) as channel:
            yield agent(card, grpc_channel_factory=lambda _: channel)
        return
    async with httpx.AsyncClient(headers=HEADERS, timeout=30) as http:
        card = await A2ACardResolver(http, URL).get_agent_card()
        wanted = (BINDING, VERSION)
        chosen = [i for i in card.supported_interfaces if (i.protocol_binding, i.protocol_version) == wanted]
        del card.supported_interfaces[:]
        card.supported_interfaces.extend(chosen)
        yield agent(card, httpx_client=http)


def agent(card: AgentCard, **more) -> Agent:
    bindings = {"supported_protocol_bindings": [BINDING], **more}
    return Agent(*(ClientFactory(ClientConfig(streaming=streams, **bindings)) for streams in (True, False)), card)


async def working(stream) -> str:
    """The task of a stream that says that it works on it."""
    async for event in stream:
        if event.WhichOneof("payload") == "status_update":
            assert event.status_update.status.state == TaskState.TASK_STATE_WORKING, event
            return event.status_update.task_id
    raise AssertionError("the stream has ended")


async def rest(stream) -> None:
    async for _ in stream:
        pass


async def one_round(agent: Agent, called) -> None:
    for streaming, method in ((False, "SendMessage"), (True, "SendStreamingMessage")):
        events = [event async for event in agent.send(NAME, streaming)]
        assert len(events) > (1 if streaming else 0), events
        called(method)
    try:
        await agent.unary.get_task(GetTaskRequest(id=NAME), context=context())
    except (TaskNotFoundError, MethodNotFoundError):
        called("GetTask", NOT_FOUND)
    if BINDING != "HTTP+JSON":  # which has no word for it
        try:
            await rest(agent.send(f"{NAME} breaks"))
        except (A2AClientError, A2AError):
            called("SendStreamingMessage", BROKEN)
    # A task that waits: somebody looks on, it is to be told of, and is cancelled, which ends both streams.
    stream = agent.send(f"{NAME} waits")
    task = await working(stream)
    again = agent.streaming.subscribe(SubscribeToTaskRequest(id=task), context=context())
    await anext(again)
    await configured(agent.unary, task, called)
    await agent.unary.cancel_task(CancelTaskRequest(id=task), context=context())
    await asyncio.gather(rest(stream), rest(again))
    for method in ("SendStreamingMessage", "SubscribeToTask", "CancelTask"):
        called(method)


async def configured(client, task: str, called) -> None:
    """Where the agent is to say what becomes of the task."""
    config = TaskPushNotificationConfig(id="c", task_id=task, url="http://nowhere.invalid/")
    await client.create_task_push_notification_config(config, context=context())
    called("CreateTaskPushNotificationConfig")
    of = {"task_id": task, "id": "c"}
    await client.get_task_push_notification_config(GetTaskPushNotificationConfigRequest(**of), context=context())
    called("GetTaskPushNotificationConfig")
    if VERSION == "1.0":
        listed = ListTaskPushNotificationConfigsRequest(task_id=task)
        await client.list_task_push_notification_configs(listed, context=context())
        called("ListTaskPushNotificationConfigs")
        deleted = DeleteTaskPushNotificationConfigRequest(**of)
        await client.delete_task_push_notification_config(deleted, context=context())
        called("DeleteTaskPushNotificationConfig")


async def main() -> list[list[str]]:
    seen: list[list[str]] = []

    def called(method: str, error: str = "") -> None:
        seen.append([OLD.get(method, method) if (BINDING, VERSION) == ("HTTP+JSON", "0.3") else method, error])

    async with connected() as agent:
        for _ in range(int(ROUNDS)):
            await one_round(agent, called)
    async with connected() as agent:
        # It leaves the stream of a task that waits, and its connection with it.
        stream = agent.send(f"{NAME} waits")
        await working(stream)
        called("SendStreamingMessage", LEFT)
    return seen


print(json.dumps(asyncio.run(asyncio.wait_for(main(), 60))))
