#!/usr/bin/env python3
"""A backend for pods: answers every request with what it saw and who it is.

Usage: backend.py PORT... [--tls CERTIFICATE KEY] [--card-url URL]. Paths: `/healthz`;
`/.well-known/agent-card.json`, whose URL is the one given or the request's Host; any path that ends in `/stream` is an endless event stream, and `/linger/stream` one that
SIGTERM does not end; all others get JSON, after `?delay=` milliseconds if asked, once as many requests are here as
`?together=` says, or never from the pod that `?hang=` names. On SIGTERM it does as uvicorn
does: listens no more, closes idle connections, ends streams and finishes running requests. It knows nothing of
Kubernetes but its host name.
"""

import asyncio
import json
import os
import re
import signal
import ssl
import sys

NAME = os.environ.get("HOSTNAME", "backend")
HEAD_BYTES = 65536


class Backend:
    """All ports of one pod."""

    def __init__(self, card_url: str | None) -> None:
        self.card_url = card_url
        self.ending = asyncio.Event()
        self.idle: set[asyncio.StreamWriter] = set()
        self.busy = 0
        self.meetings: dict[int, asyncio.Barrier] = {}

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self.ending.is_set():
                self.idle.add(writer)
                head = await reader.readuntil(b"\r\n\r\n")
                self.idle.discard(writer)
                self.busy += 1
                try:
                    await self.request(head.decode("latin-1"), reader, writer)
                finally:
                    self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.idle.discard(writer)
            writer.close()

    async def request(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = [[part.strip() for part in line.split(":", 1)] for line in lines]
        names = {name.lower(): value for name, value in headers}
        body = await read_body(names, reader)
        port = writer.get_extra_info("sockname")[1]
        if path.split("?")[0].endswith("/stream"):
            return await self.stream(writer, path.startswith("/linger/"))
        saw = {"pod": NAME, "port": port, "method": method, "path": path, "headers": headers, "bytes": len(body)}
        saw["busy"] = self.busy
        saw["tls"] = writer.get_extra_info("ssl_object") is not None
        if path == "/healthz":
            saw = {"ok": True}
        elif path.endswith("/.well-known/agent-card.json"):
            saw = card(self.card_url or f"http://{names.get('host', NAME)}", saw)
        if together := re.search(r"[?&]together=(\d+)", path):
            count = int(together[1])
            await self.meetings.setdefault(count, asyncio.Barrier(count)).wait()
        if re.search(rf"[?&]hang={re.escape(NAME)}(&|$)", path):
            await asyncio.Event().wait()
        if delay := re.search(r"[?&]delay=(\d+)", path):
            await asyncio.sleep(int(delay[1]) / 1000)
        text = json.dumps(saw).encode()
        close = "Connection: close\r\n" if self.ending.is_set() else ""
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{close}Content-Length: {len(text)}\r\n\r\n".encode()
            + (b"" if method == "HEAD" else text)
        )
        await writer.drain()

    async def stream(self, writer: asyncio.StreamWriter, linger: bool) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        number = 0
        while linger or not self.ending.is_set():
            event = f"data: {json.dumps({'pod': NAME, 'number': number})}\n\n".encode()
            writer.write(b"%x\r\n%s\r\n" % (len(event), event))
            await writer.drain()
            number += 1
            try:
                await asyncio.wait_for(asyncio.Event().wait() if linger else self.ending.wait(), 0.2)
            except TimeoutError:
                continue
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def run(self, ports: list[int], tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.ending.set)
        servers = [
            await asyncio.start_server(self.connection, [host], port, ssl=tls, limit=HEAD_BYTES, backlog=512)
            for port in ports
            for host in ("0.0.0.0", "::")
        ]
        await self.ending.wait()
        for server in servers:
            server.close()
        for writer in list(self.idle):
            writer.close()
        while self.busy:
            await asyncio.sleep(0.01)


async def read_body(names: dict[str, str], reader: asyncio.StreamReader) -> bytes:
    if names.get("transfer-encoding", "").lower() != "chunked":
        return await reader.readexactly(int(names.get("content-length", 0)))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while await reader.readuntil(b"\r\n") != b"\r\n":
        pass
    return body


def card(url: str, saw: dict) -> dict:
    return {
        "name": NAME,
        "description": "a backend of the tests",
        "version": "1",
        "protocolVersion": "0.3",
        "url": url,
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": True},
        "defaultInputModes": ["text"],
        "defaultOutputModes": ["text"],
        "skills": [],
        "saw": saw,
    }


def main() -> None:
    arguments = sys.argv[1:]
    tls = card_url = None
    if "--card-url" in arguments:
        at = arguments.index("--card-url")
        card_url = arguments[at + 1]
        del arguments[at : at + 2]
    if "--tls" in arguments:
        at = arguments.index("--tls")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*arguments[at + 1 : at + 3])
        del arguments[at : at + 3]

    async def go() -> None:
        await Backend(card_url).run([int(port) for port in arguments], tls)

    asyncio.run(go())


main()
