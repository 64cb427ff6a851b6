#!/usr/bin/env python3
"""An agent of A2A's Python SDK 1.x with a book of its calls: `agent_grpc.py PORT BOOK`.

Speaks 1.0 and 0.3 over gRPC.
"""

import asyncio
import pathlib
import sys

import grpc
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc
from a2a.compat.v0_3.grpc_handler import CompatGrpcHandler
from a2a.server.request_handlers import GrpcHandler
from a2a.types import a2a_pb2_grpc

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
import pieces  # noqa: E402
from ledger import CURRENT, opened, operation, write  # noqa: E402

PORT, BOOK = sys.argv[1:]


class Call:
    """One call: the handler says which, the status how it ended."""

    def __init__(self, file: int, context: grpc.aio.ServicerContext) -> None:
        self.file, self.context, self.row = file, context, {}

    def __enter__(self) -> None:
        CURRENT.set(self)

    def operation(self, method: str, client: str) -> None:
        self.row = {"client": client, "method": method, "name": "", "how": "alone"}

    def __exit__(self, kind, *_) -> None:
        # The SDK ends some streams as if nothing were when their client leaves, which cancels the task.
        left = kind in (asyncio.CancelledError, GeneratorExit) or asyncio.current_task().cancelling()
        code = self.context.code() or (grpc.StatusCode.UNKNOWN if kind else None)
        write(self.file, error="client_gone" if left else code.name if code else "", **self.row)


class Book(grpc.aio.ServerInterceptor):
    """Writes each call down when it has ended."""

    def __init__(self, path: str) -> None:
        self.file = opened(path)

    async def intercept_service(self, continuation, details):
        found, file = await continuation(details), self.file
        if found is None:
            return None

        async def unary(request, context):
            with Call(file, context):
                return await found.unary_unary(request, context)

        async def stream(request, context):
            with Call(file, context):
                async for answer in found.unary_stream(request, context):
                    yield answer

        kinds = {"request_deserializer": found.request_deserializer, "response_serializer": found.response_serializer}
        if found.response_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **kinds)
        return grpc.unary_unary_rpc_method_handler(unary, **kinds)


async def main() -> None:
    url = f"http://0.0.0.0:{PORT}"
    # Its operations have the names of 1.0 in both versions.
    handler = pieces.Named(pieces.handler(pieces.card((url, "GRPC", "1.0"), (url, "GRPC", "0.3"))), "1.0", operation)
    server = grpc.aio.server(interceptors=[Book(BOOK)])
    a2a_pb2_grpc.add_A2AServiceServicer_to_server(GrpcHandler(handler), server)
    a2a_v0_3_pb2_grpc.add_A2AServiceServicer_to_server(CompatGrpcHandler(handler), server)
    server.add_insecure_port(f"0.0.0.0:{PORT}")
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
