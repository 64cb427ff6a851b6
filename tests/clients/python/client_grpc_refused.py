"""How calls of gRPC fail: `client_grpc_refused.py METHOD... URL HOST`, as JSON: code, details and metadata of each.

HOST `-` sends none. Methods are those of `server_grpc.py`.
"""

import json
import queue
import sys
import urllib.parse

import grpc

*METHODS, URL, HOST = sys.argv[1:]
WHO = (("x-kagent-host", HOST),) if HOST != "-" else ()
KINDS = {"Echo": "unary_unary", "Count": "unary_stream", "Chat": "stream_stream", "Die": "stream_stream"}


def said(channel, name: str) -> list:
    method = getattr(channel, KINDS[name])(f"/test.Bytes/{name}")
    options = {"metadata": WHO, "timeout": 30}
    try:
        match KINDS[name]:
            case "unary_unary":
                method(b"x", **options)
            case "unary_stream":
                list(method(b"3", **options))
            case _:
                # The second message goes out behind the first answer.
                messages: queue.SimpleQueue = queue.SimpleQueue()
                messages.put(b"a")
                for _ in method(iter(messages.get, None), **options):
                    messages.put(b"b")
    except grpc.RpcError as error:
        return [error.code().name, error.details(), dict(error.trailing_metadata() or ())]
    return ["no error"]


with grpc.insecure_channel(urllib.parse.urlsplit(URL).netloc) as channel:
    print(json.dumps({name: said(channel, name) for name in METHODS}))
