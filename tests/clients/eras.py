"""What the suite of eras stands on: clients that follow orders, and a door before a server that is opened and closed.

A client is a process that reads orders from its standard input, one JSON list a line, and answers each with one JSON
object: `["connect", URL]` tries until it has connected, `["call", TOOL]`, `["listen"]` subscribes to the list of tools,
`["change"]` waits for one, `["end"]` for the end of the subscription. Knows no SDK.
"""

import json
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable

from harness import Stage, free_port

SECONDS = 30
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Follower:
    """A client that follows orders."""

    def __init__(self, stage: Stage, name: str, command: list, mode: str, host: str) -> None:
        self.name, self._log = name, stage.folder / f"{name}-{free_port()}.log"
        full = [str(part) for part in command] + [mode, host]
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        stage.adopt(self._process)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self._answer("its start")

    def order(self, *words: str) -> Callable[[], dict]:
        """Gives an order; what it returns waits for the answer."""
        self._process.stdin.write(json.dumps(words) + "\n")
        return lambda: self._answer(words)

    def ask(self, *words: str) -> dict:
        return self.order(*words)()

    def _answer(self, what: object) -> dict:
        try:
            line = self._answers.get(timeout=SECONDS)
        except queue.Empty:
            line = ""
        if not line:
            raise RuntimeError(f"{self.name} does not answer {what}: {self._log.read_text()[-2000:]}")
        return json.loads(line)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")


class Door:
    """A port before a server: closed it refuses connections, open it passes them on."""

    def __init__(self, server: int) -> None:
        self._server = server
        # Bound and not listening: it refuses, and nobody else gets the port.
        self._held = _bound(0)
        self.port = self._held.getsockname()[1]
        self._is_open = False
        self._open: list[socket.socket] = []
        self.knocks = 0

    def open(self, first: bytes | None = None, breaks: bool = False) -> "Door":
        """Passes connections on; the very first request gets this answer instead. One that `breaks` takes each
        connection and closes it at its first byte, as a server does that is about to end."""
        self.shut()
        listener, self._is_open = self._held, True
        listener.listen()
        threading.Thread(target=self._accept, args=(listener, first, breaks), daemon=True).start()
        return self

    def shut(self) -> None:
        """Refuses, and closes every connection that is open."""
        if self._is_open:
            self._held.shutdown(socket.SHUT_RDWR)
            self._held.close()
            self._held, self._is_open = _bound(self.port), False
        for one in self._open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
        self._open.clear()

    def _accept(self, listener: socket.socket, first: bytes | None, breaks: bool) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.knocks += 1
            threading.Thread(target=self._serve, args=(client, first, breaks), daemon=True).start()
            first = None

    def _serve(self, client: socket.socket, first: bytes | None, breaks: bool) -> None:
        try:
            if first is not None or breaks:
                client.recv(65536)
                if first is not None:
                    client.sendall(first)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(65536):
                        pass
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self._server))
        except OSError:
            client.close()
            return
        self._open += [client, server]
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        _pump(server, client)


def _bound(port: int) -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while some := one.recv(65536):
            other.sendall(some)
    except OSError:
        pass  # whoever ended it ends both
    for end in (one, other):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended by itself


def at(begun: float, seconds: float) -> None:
    """Waits until so long after `begun`: when a server comes is what these scenarios differ by."""
    time.sleep(max(0.0, begun + seconds - time.monotonic()))
