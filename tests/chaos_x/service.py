"""A Kubernetes Service in small: one address in front of replicas, a replica for each connection.

It knows TCP only, as kube-proxy does. A replica that is taken out gets no new connections; its open ones stay until
they end, or until [`Service.cut`].
"""

import asyncio
import contextlib
import time
from collections.abc import Callable


class Service:
    def __init__(self, tell: Callable[[str], None]) -> None:
        self.port, self._tell = 0, tell
        self.ready: list[int] = []
        self._turn = 0
        self._pairs: dict[int, set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def admit(self, port: int) -> None:
        if port not in self.ready:
            self.ready.append(port)

    def remove(self, port: int) -> None:
        if port in self.ready:
            self.ready.remove(port)

    def cut(self, port: int) -> None:
        """Ends the connections of a replica, as a node does when its network goes."""
        for pair in list(self._pairs.get(port, ())):
            for writer in pair:
                writer.close()

    async def close(self) -> None:
        self._server.close()
        for port in list(self._pairs):
            self.cut(port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(len(self.ready)):
            self._turn += 1
            port = self.ready[self._turn % len(self.ready)]
            with contextlib.suppress(OSError):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            writer.close()
            return
        pair = (writer, far_writer)
        self._pairs.setdefault(port, set()).add(pair)
        seen = {"client": 0.0, "replica": 0.0}
        await asyncio.gather(
            self._pipe(reader, far_writer, seen, "client"), self._pipe(far_reader, writer, seen, "replica")
        )
        self._pairs[port].discard(pair)
        if seen["ended"] == "replica" and seen["client"] > seen["replica"]:
            late = (time.monotonic() - seen["client"]) * 1000
            self._tell(f"replica at {port} closed a connection {late:.1f} ms after its client sent something")

    async def _pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: dict, whose: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                seen[whose] = time.monotonic()
                writer.write(data)
                await writer.drain()
        seen.setdefault("ended", whose)
        writer.close()
