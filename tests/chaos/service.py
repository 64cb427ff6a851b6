"""A Kubernetes Service in small: one address in front of replicas, a replica for each connection.

It knows TCP only, as kube-proxy does. A replica is a port of loopback, or `ADDRESS:PORT`. A replica that is taken out gets no new connections; its open ones stay until
they end, or until [`Service.cut`]. It runs in a process of its own, `service.py`, that does nothing else: the
connection that a replica closes must be closed for the client in the same moment, or requests are lost in between
that a cluster would not lose.
"""

import asyncio
import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Callable

from processes import Process, Stage


class Service:
    """The side of the run: who is ready."""

    def __init__(self, stage: Stage, tell: Callable[[str], None]) -> None:
        command = [sys.executable, pathlib.Path(__file__).resolve()]
        self.process, self._tell = Process(stage, "service", command), tell
        self.port = 0
        self.ready: list[int | str] = []
        self._gone: dict[str, asyncio.Future] = {}
        self._last: asyncio.Future | None = None

    async def start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        await self.process.start(stdin=pipe, stdout=pipe)
        self.port = int(await self.process.process.stdout.readline())
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while line := await self.process.process.stdout.readline():
            event = json.loads(line)
            if "gone" in event:
                self._gone.pop(event["gone"]).set_result(None)
            elif "last" in event:
                self._last.set_result(event["last"])
            else:
                self._tell(event["text"], event["at"])

    def become(self, replicas: list[str]) -> None:
        """These are ready, and no others."""
        self.ready = replicas
        self._order("ready", *self.ready)

    def admit(self, port: int) -> None:
        if port not in self.ready:
            self.ready.append(port)
        self._order("ready", *self.ready)

    def remove(self, port: int) -> None:
        if port in self.ready:
            self.ready.remove(port)
        self._order("ready", *self.ready)

    def cut(self, port: int) -> None:
        """Ends the connections of a replica, as a node does when its network goes."""
        self._order("cut", port)

    async def gone(self, port: int) -> None:
        """Waits until no connection leads to a replica any more."""
        self._gone[str(port)] = asyncio.get_running_loop().create_future()
        self._order("gone", port)
        await self._gone[str(port)]

    async def last(self) -> int:
        """The replica that a client has sent something to last."""
        self._last = asyncio.get_running_loop().create_future()
        self._order("last")
        return int(await self._last)

    def _order(self, *words: object) -> None:
        self.process.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")

    async def close(self) -> None:
        self._reading.cancel()
        await self.process.kill()


class Balancer:
    """The side of the connections."""

    def __init__(self) -> None:
        self.ready: list[str] = []
        self._turn, self._last = 0, ""
        self._pairs: dict[str, set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]] = {}

    async def serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        orders = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(orders)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        waits = set()
        while line := await orders.readline():
            word, *ports = line.decode().split()
            if word == "ready":
                self.ready = ports
            elif word == "last":
                print(json.dumps({"last": self._last}), flush=True)
            elif word == "gone":
                waits.add(asyncio.create_task(self._say_gone(ports[0])))
            else:
                for pair in list(self._pairs.get(ports[0], ())):
                    for writer in pair:
                        writer.close()

    async def _say_gone(self, port: str) -> None:
        while self._pairs.get(port):
            await asyncio.sleep(0.002)  # between two looks
        print(json.dumps({"gone": port}), flush=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self.ready)):
            self._turn += 1
            port = self.ready[self._turn % len(self.ready)]
            with contextlib.suppress(OSError):
                address, _, number = port.rpartition(":")
                far_reader, far_writer = await asyncio.open_connection(address or "127.0.0.1", int(number))
                break
        else:
            writer.close()
            return
        pair = (writer, far_writer)
        self._pairs.setdefault(port, set()).add(pair)
        seen = {"client": 0.0, "replica": 0.0}
        await asyncio.gather(
            self._pipe(reader, far_writer, seen, "client", port), self._pipe(far_reader, writer, seen, "replica", port)
        )
        self._pairs[port].discard(pair)
        if seen["ended"] == "replica" and seen["client"] > seen["replica"]:
            late = (time.time() - seen["client"]) * 1000
            text = f"replica at {port} closed a connection {late:.1f} ms after its client sent something"
            print(json.dumps({"text": text, "at": time.time()}), flush=True)

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: dict, whose: str, port: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                seen[whose] = time.time()
                if whose == "client":
                    self._last = port
                writer.write(data)
                await writer.drain()
        seen.setdefault("ended", whose)
        writer.close()


if __name__ == "__main__":
    asyncio.run(Balancer().serve())
