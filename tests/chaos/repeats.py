#!/usr/bin/env python3
"""A proxy with a fault: it sends every `tools/call` twice. `run.py repeats.py` must say so, and fail.

It has as much of kagent-proxy's command line, configuration and admin endpoints as a run needs, and sends
everything to the first target.
"""

import asyncio
import json
import pathlib
import signal
import sys

CONFIG = pathlib.Path(sys.argv[sys.argv.index("--config") + 1])


def targets() -> list[str]:
    """The addresses of the one route, as they are now."""
    return [target.removeprefix("http://") for target in json.loads(CONFIG.read_text())["routes"][0]["targets"]]


async def request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """One request: its head, which asks for one response only, and its body."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"connection:")]
    length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    return b"\r\n".join([*lines, b"connection: close", b"", b""]), await reader.readexactly(length)


async def send(head: bytes, body: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = targets()[0].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + body)
    return reader, writer


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head, body = await request(reader)
        if b'"tools/call"' in body:
            first, ends = await send(head, body)
            await first.readuntil(b"\r\n\r\n")
            ends.close()
        answer, far = await send(head, body)
        while data := await answer.read(65536):
            writer.write(data)
            await writer.drain()
        far.close()
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def admin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)
    endpoints = [{"address": target} for target in targets()]
    text = json.dumps({"routes": [{"endpoints": endpoints}]})
    writer.write(f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
    writer.close()


async def main() -> None:
    config = json.loads(CONFIG.read_text())
    for handler, address in ((serve, config["listeners"][0]["address"]), (admin, config["admin"]["address"])):
        host, port = address.rsplit(":", 1)
        await asyncio.start_server(handler, host, int(port))
    ends = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    await ends.wait()


if sys.argv[1] == "check":
    sys.exit(64)  # it knows no sessions
asyncio.run(main())
