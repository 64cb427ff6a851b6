"""Two gRPC services on one port: `server_grpc.py PORT CARDS`.

The one is A2A's own, of the Python SDK 1.x, in its revisions 1.0 and 0.3, with the agent of `server_a2a_1.py`; its card
is at CARDS, over HTTP. The other passes bytes, in every way in which gRPC can; it counts the calls that were cancelled.
"""

import asyncio
import os
import sys

import grpc
import uvicorn
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler, GrpcHandler
from a2a.server.routes import create_agent_card_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, a2a_pb2_grpc
from starlette.applications import Starlette

PORT, CARDS = map(int, sys.argv[1:])
SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Bytes(grpc.GenericRpcHandler):
    """`test.Bytes`: each method by its kind."""

    def __init__(self) -> None:
        self.cancelled = 0

    def service(self, call):
        kinds = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
            "Wait": grpc.unary_stream_rpc_method_handler(self.wait),
            "Die": grpc.stream_stream_rpc_method_handler(self.die),
            "Cancelled": grpc.unary_unary_rpc_method_handler(self.how_many),
        }
        service, _, name = call.method.lstrip("/").partition("/")
        return kinds.get(name) if service == "test.Bytes" else None

    async def echo(self, request: bytes, context) -> bytes:
        asked = dict(context.invocation_metadata())
        await context.send_initial_metadata([("x-first", asked.get("x-asked", ""))])
        left = context.time_remaining()
        trailers = [("x-last", "1"), ("x-last", "2"), ("x-last-bin", b"\0\xff"), ("x-limited", str(left is not None))]
        context.set_trailing_metadata(trailers)
        return request

    async def count(self, request: bytes, context):
        for number in range(int(request)):
            yield str(number).encode()

    async def join(self, requests, context) -> bytes:
        return b",".join([request async for request in requests])

    async def chat(self, requests, context):
        async for request in requests:
            yield request.upper()

    async def fail(self, request: bytes, context) -> bytes:
        context.set_trailing_metadata([("x-why", "a test's")])
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not \u00fcberall: 100%")

    async def fail_late(self, request: bytes, context):
        yield b"one"
        context.set_trailing_metadata([("x-why", "late")])
        await context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    async def wait(self, request: bytes, context):
        try:
            yield b"begun"
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def die(self, requests, context):
        async for _ in requests:
            yield b"begun"
            break
        # Once the client has read that.
        async for _ in requests:
            os._exit(1)

    async def how_many(self, request: bytes, context) -> bytes:
        return str(self.cancelled).encode()


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


async def main() -> None:
    interfaces = [
        AgentInterface(url=f"http://127.0.0.1:{PORT}", protocol_binding="GRPC", protocol_version=version)
        for version in ("1.0", "0.3")
    ]
    card = AgentCard(
        name="python", description="pieces", version="1", supported_interfaces=interfaces,
        capabilities=AgentCapabilities(streaming=True, extended_agent_card=True),
        default_input_modes=["text"], default_output_modes=["text"], skills=[],
    )  # fmt: skip
    handler = DefaultRequestHandler(
        agent_executor=Pieces(), task_store=InMemoryTaskStore(), agent_card=card, extended_agent_card=card
    )
    server = grpc.aio.server(options=SIZES)
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler), server)
    server.add_generic_rpc_handlers((Bytes(),))
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    await server.start()
    cards = Starlette(routes=create_agent_card_routes(card))
    await uvicorn.Server(uvicorn.Config(cards, host="127.0.0.1", port=CARDS, log_level="warning")).serve()


asyncio.run(main())
