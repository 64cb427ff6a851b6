#!/usr/bin/env python3
"""Memory of the real program under what could make it grow: big bodies, many streams, long silence.

Usage: memory.py PATH_OF_KAGENT_PROXY [--mib N] [--streams N] [--silence SECONDS]. Without options 256 MiB
up and down and 2,000 streams; `--mib 1024` and `--silence 600` are the long variants. Asserts that the
program is small on disk and when it has nothing to do, that its resident memory stays flat, that a stream takes
little, that each gets its own events and that silence ends nothing; never how fast anything is. Standard
library only; loopback only.
"""

import argparse
import asyncio
import os
import pathlib
import resource
import socket
import subprocess
import time

HOST = "tools.team-a"
FLAT = 32 * 2**20
# KiB of a silent stream. 10.4 to 10.5 were measured; one more touched page of 4 KiB in each is far beyond it. The aim
# is 10.5.
STREAM = 11.0
# Bytes of the program as it is shipped: 14.7 MB were measured.
BINARY = 15_000_000
# Resident before the first request: 9.2 to 10.9 MiB were measured, the aim is 10. All but 1.6 of it are pages of the
# program's file and of libraries, of which the kernel maps more ahead when the file has just been written.
IDLE = 25 * 2**19
OWN = 2 * 2**20
CHUNK = b"0123456789abcdef" * 4096


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """The proxy, with a route to `backend`."""

    def __init__(self, program: str, backend: int) -> None:
        self.port = free_port()
        command = [program, "run", "--listen", f"127.0.0.1:{self.port}", "--admin", "127.0.0.1:0",
                   "--route", f"{HOST}=127.0.0.1:{backend}"]
        env = {k: v for k, v in os.environ.items() if not k.startswith("KAGENT_PROXY")}
        self.process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None and time.monotonic() < until, "it does not listen"
            time.sleep(0.05)  # the port opens when the program is ready

    def memory(self, what: str) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{what}:")[1].split()[0]) * 1024

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


async def backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """PUT counts the body; GET /bytes/N sends a body; GET /events/NAME sends events on demand."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            method, path, _ = head.split(" ", 2)
            if method == "PUT":
                left = length = int(head.lower().split("content-length:")[1].split()[0])
                while left:
                    left -= len(await reader.readexactly(min(left, len(CHUNK))))
                body = str(length).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            elif path.startswith("/bytes/"):
                left = int(path[7:])
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % left)
                while left:
                    writer.write(CHUNK[:left])
                    left -= min(left, len(CHUNK))
                    await writer.drain()
            else:
                await events(path.rsplit("/", 1)[1], writer)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # the other side, or the test, is over
    finally:
        writer.close()


GO: dict[str, asyncio.Queue] = {}


async def events(name: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                 b"transfer-encoding: chunked\r\n\r\n")
    while (number := await GO[name].get()) is not None:
        event = f"data: {name}/{number}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def ask(program: Program, line: str, *fields: str) -> tuple:
    reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
    head = "\r\n".join([f"{line} HTTP/1.1", "host: proxy", f"x-kagent-host: {HOST}", *fields])
    writer.write(f"{head}\r\n\r\n".encode())
    return reader, writer


def small(program: Program, path: str) -> None:
    size = os.path.getsize(path)
    idle = program.memory("VmRSS")
    own = program.memory("RssAnon")
    print(f"the program: {size / 1e6:.1f} MB on disk, {idle >> 10} KiB of RSS when idle, {own >> 10} of its own")
    assert size <= BINARY, f"more than {BINARY} bytes on disk"
    assert idle <= IDLE, f"more than {IDLE >> 10} KiB when idle"
    assert own <= OWN, f"more than {OWN >> 10} KiB of its own when idle"


async def bodies(program: Program, size: int) -> None:
    before = program.memory("VmRSS")
    reader, writer = await ask(program, "PUT /up", f"content-length: {size}")
    for _ in range(size // len(CHUNK)):
        writer.write(CHUNK)
        await writer.drain()
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(str(size))) == str(size).encode()
    writer.close()
    up = program.memory("VmHWM")
    reader, writer = await ask(program, f"GET /bytes/{size}")
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    left = size
    while left:
        piece = await reader.readexactly(min(left, len(CHUNK)))
        assert piece == CHUNK[:len(piece)], "the body has changed on its way"
        left -= len(piece)
    writer.close()
    down = program.memory("VmHWM")
    print(f"{size >> 20} MiB: peak RSS grew {(up - before) >> 10} KiB up, {(down - before) >> 10} down")
    assert down - before < FLAT, f"grew from {before} to {down} bytes"


async def read_event(reader: asyncio.StreamReader) -> str:
    """The next event's data; comments and chunk sizes are passed over."""
    while True:
        line = await reader.readuntil(b"\n")
        if line.startswith(b"data: "):
            return line[6:].decode().strip()


async def streams(program: Program, count: int) -> None:
    before = program.memory("VmRSS")
    opened = []
    for number in range(count):
        name = f"s{number}"
        GO[name] = asyncio.Queue()
        reader, writer = await ask(program, f"GET /events/{name}", "accept: text/event-stream")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        opened.append((name, reader, writer))
    for number in range(3):
        for name, _, _ in opened:
            GO[name].put_nowait(number)
        for name, reader, _ in opened:
            assert await read_event(reader) == f"{name}/{number}"
    each = (program.memory("VmRSS") - before) / count / 1024
    print(f"{count} streams, each with its own events: {each:.1f} KiB of RSS for each")
    assert each < STREAM, f"more than {STREAM} KiB"
    for name, reader, writer in opened:
        GO[name].put_nowait(None)
        rest = await reader.readuntil(b"0\r\n\r\n")
        assert b"data:" not in rest
        writer.close()


async def silence(program: Program, seconds: int) -> None:
    GO["silent"] = asyncio.Queue()
    reader, writer = await ask(program, "GET /events/silent", "accept: text/event-stream")
    await reader.readuntil(b"\r\n\r\n")
    GO["silent"].put_nowait("first")
    assert await read_event(reader) == "silent/first"
    await asyncio.sleep(seconds)  # the silence is what is tested
    GO["silent"].put_nowait("last")
    comments = 0
    while True:
        line = await reader.readuntil(b"\n")
        comments += line.startswith(b":")
        if line.startswith(b"data: "):
            break
    assert line.strip() == b"data: silent/last", line
    print(f"{seconds} s of silence: {comments} comments, and the stream went on")
    assert comments >= seconds // 30 - 1, "comments are missing"
    writer.close()


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--silence", type=int, default=0)
    args = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await asyncio.start_server(backend, "127.0.0.1", 0, backlog=1024)
    program = Program(args.program, server.sockets[0].getsockname()[1])
    # Generous: it only ends what hangs.
    try:
        if args.silence:
            await asyncio.wait_for(silence(program, args.silence), args.silence + 60)
            return
        small(program, args.program)
        await asyncio.wait_for(bodies(program, args.mib << 20), 600)
        await asyncio.wait_for(streams(program, args.streams), 600)
    finally:
        program.stop()


asyncio.run(main())
