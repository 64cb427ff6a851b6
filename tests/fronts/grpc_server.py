"""A gRPC server of bytes: `grpc_server.py PORT`. Its methods are named after what they do."""

import sys
import threading
from concurrent import futures

import grpc

LEFT = threading.Semaphore(0)


def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("x-sum", "7"), ("x-bin-bin", b"\x00\xff")))
    return request


def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now, ümlaut")


def both_ways(requests, context: grpc.ServicerContext):
    """Answers each message before the next one comes."""
    for request in requests:
        yield request.upper()


def endless(request: bytes, context: grpc.ServicerContext):
    """Until its client leaves."""
    context.add_callback(LEFT.release)
    yield b"first"
    while context.is_active():
        threading.Event().wait(0.05)  # between two looks


def left(request: bytes, context: grpc.ServicerContext) -> bytes:
    """Answers when the client of an endless stream has left."""
    return b"left" if LEFT.acquire(timeout=10) else b"never"


server = grpc.server(futures.ThreadPoolExecutor(16))
handlers = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    "BothWays": grpc.stream_stream_rpc_method_handler(both_ways),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Left": grpc.unary_unary_rpc_method_handler(left),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Test", handlers),))
assert server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
