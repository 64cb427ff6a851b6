"""What a gRPC client sees: `grpc_client.py ADDRESS HOST`, as JSON."""

import json
import queue
import sys

import grpc

ADDRESS, HOST = sys.argv[1:]
MORE = {"metadata": (("x-kagent-host", HOST),), "timeout": 15}
seen: dict[str, object] = {}

with grpc.insecure_channel(ADDRESS) as channel:
    answer, call = channel.unary_unary("/t.Test/Echo").with_call(b"x" * 300_000, **MORE)
    trailing = {key: value for key, value in call.trailing_metadata() if key.startswith("x-")}
    seen["echo"] = answer == b"x" * 300_000
    seen["trailers"] = [trailing["x-sum"], trailing["x-bin-bin"].hex()]
    try:
        channel.unary_unary("/t.Test/Refuse")(b"", **MORE)
    except grpc.RpcError as error:
        seen["status"] = [error.code().name, error.details(), dict(error.trailing_metadata()).get("x-why")]
    try:
        channel.unary_unary("/t.Test/None")(b"", **MORE)
    except grpc.RpcError as error:
        seen["unknown method"] = error.code().name
    words: queue.Queue = queue.Queue()
    stream = channel.stream_stream("/t.Test/BothWays")(iter(words.get, None), **MORE)
    said = []
    for word in (b"a", b"b", b"c"):
        words.put(word)
        said.append(next(stream).decode())
    words.put(None)
    seen["both ways"] = [*said, list(stream), stream.code().name]
    endless = channel.unary_stream("/t.Test/Endless")(b"", **MORE)
    seen["first"] = next(endless).decode()
    endless.cancel()
    seen["cancel"] = channel.unary_unary("/t.Test/Left")(b"", **MORE).decode()
print(json.dumps(seen))
