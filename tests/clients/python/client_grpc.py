"""What a client of grpcio sees of the bytes service: `client_grpc.py URL HOST`, as JSON."""

import asyncio
import json
import sys
import urllib.parse

import grpc

URL, HOST = sys.argv[1:]
WHO = (("x-kagent-host", HOST),)
SIZES = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
LARGE = bytes(range(256)) * 32 * 1024  # 8 MiB


def own(metadata) -> list[str]:
    """What the server has said itself: what HTTP and proxies add is no part of it."""
    return sorted(f"{key}={value}" for key, value in metadata or () if key.startswith("x-"))


async def main() -> None:
    seen: dict[str, object] = {}
    async with grpc.aio.insecure_channel(urllib.parse.urlsplit(URL).netloc, options=SIZES) as channel:

        def method(kind: str, name: str):
            return getattr(channel, kind)(f"/test.Bytes/{name}")

        echo = method("unary_unary", "Echo")
        call = echo(b"hi", metadata=(*WHO, ("x-asked", "said"), ("x-asked-bin", b"\0\1")), timeout=20)
        seen["unary"] = (await call).decode()
        seen["unary metadata"] = own(await call.initial_metadata())
        seen["unary trailers"] = own(await call.trailing_metadata())
        seen["unary code"] = (await call.code()).name
        call = echo(b"hi", metadata=WHO)
        await call
        seen["no deadline"] = own(await call.trailing_metadata())
        seen["empty"] = await echo(b"", metadata=WHO) == b""
        seen["large"] = await echo(LARGE, metadata=WHO) == LARGE
        seen["many at once"] = sorted(await asyncio.gather(*(echo(b"%d" % n, metadata=WHO) for n in range(150))))[-1].decode()

        counted = [piece async for piece in method("unary_stream", "Count")(b"1000", metadata=WHO)]
        seen["server streaming"] = len(counted), counted[-1].decode()
        seen["client streaming"] = (
            await method("stream_unary", "Join")((b"%d" % n for n in range(100)), metadata=WHO)
        ).decode()

        # Each answer comes before the next question is sent: nothing waits for an end.
        chat = method("stream_stream", "Chat")(metadata=WHO)
        said = []
        for word in (b"one", b"two", b"three"):
            await chat.write(word)
            said.append((await chat.read()).decode())
        await chat.done_writing()
        seen["bidirectional"] = said
        seen["bidirectional end"] = await chat.read() is grpc.aio.EOF and (await chat.code()).name

        async def failed(call) -> list:
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                return [error.code().name, error.details(), own(error.trailing_metadata())]
            return ["no error"]

        try:
            await method("unary_unary", "Fail")(b"", metadata=WHO)
        except grpc.aio.AioRpcError as error:
            seen["error"] = [error.code().name, error.details(), own(error.trailing_metadata())]
        seen["late error"] = await failed(method("unary_stream", "FailLate")(b"", metadata=WHO))
        seen["no method"] = (await failed(method("unary_stream", "Nothing")(b"", metadata=WHO)))[0]

        async def cancelled() -> int:
            return int(await method("unary_unary", "Cancelled")(b"", metadata=WHO))

        async def grows(before: int) -> bool:
            while await cancelled() == before:
                await asyncio.sleep(0.01)  # between two looks
            return await cancelled() == before + 1

        before = await cancelled()
        waiting = method("unary_stream", "Wait")(b"", metadata=WHO)
        seen["waiting"] = (await waiting.read()).decode()
        waiting.cancel()
        seen["cancellation arrives"] = await asyncio.wait_for(grows(before), 20)
        before = await cancelled()
        seen["deadline"] = (await failed(method("unary_stream", "Wait")(b"", metadata=WHO, timeout=0.5)))[0]
        seen["deadline arrives"] = await asyncio.wait_for(grows(before), 20)
    print(json.dumps(seen, sort_keys=True))


asyncio.run(asyncio.wait_for(main(), 60))
