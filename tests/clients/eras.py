"""What the suite of eras stands on: clients that follow orders, and a door before a server that is opened and closed.

A client is a process that reads orders from its standard input, one JSON list a line, and answers each with one JSON
object: `["connect", URL]` tries until it has connected, `["call", TOOL]`, `["listen"]` subscribes to the list of tools,
`["change"]` waits for one, `["end"]` for the end of the subscription. Knows no SDK.
"""

import itertools
import json
import queue
import re
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable

from harness import Stage, free_port

SECONDS = 30
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
UNAVAILABLE = NOT_FOUND.replace(b"404 Not Found", b"503 Service Unavailable")


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

    def __init__(self, server: int, port: int = 0) -> None:
        self._server = server
        # Bound and not listening: it refuses, and nobody else gets the port.
        self._held = _bound(port)
        self.port = self._held.getsockname()[1]
        self._is_open = False
        self._open: list[socket.socket] = []
        self._reopened = threading.Event()
        self.knocks = 0

    def open(self, first: Iterable[bytes] = (), breaks: bool = False) -> "Door":
        """Passes connections on; the first ones get these answers instead. One that `breaks` takes each connection and
        closes it at its first byte, as a server does that is about to end."""

        def broken(client: socket.socket) -> None:
            client.recv(65536)
            client.close()

        answers = (lambda client, answer=answer: _answer(client, answer) for answer in first)
        others = broken if breaks else self._pass
        return self._listen(lambda: next(answers, others))

    def retire(self, instead: bytes | None = None) -> None:
        """Refuses what comes, and goes on with the connections that are open: a server that ends. With `instead` it is
        wrong: what comes waits for the next server, and gets this answer when that one is there."""
        if instead is None:
            self._unlisten()
            return
        reopened = threading.Event()

        def wrong(client: socket.socket) -> None:
            reopened.wait(SECONDS)
            _answer(client, instead)

        self._listen(lambda: wrong)
        self._reopened = reopened

    def shut(self) -> None:
        """Refuses, and closes every connection that is open."""
        self._unlisten()
        for one in self._open:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
        self._open.clear()

    def leave(self) -> None:
        """Gives the port up, for somebody else to have it."""
        self._unlisten()
        self._held.close()

    def answer(self) -> None:
        """Whoever it is, is there: what a wrong server has kept waiting is answered."""
        self._reopened.set()

    def _unlisten(self) -> None:
        if self._is_open:
            self._held.shutdown(socket.SHUT_RDWR)
            self._held.close()
            self._held, self._is_open = _bound(self.port), False

    def _listen(self, choose: Callable[[], Callable[[socket.socket], None]]) -> "Door":
        self._unlisten()
        listener, self._is_open = self._held, True
        listener.listen()
        self._reopened.set()
        threading.Thread(target=self._accept, args=(listener, choose), daemon=True).start()
        return self

    def _accept(self, listener: socket.socket, choose: Callable[[], Callable[[socket.socket], None]]) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.knocks += 1
            threading.Thread(target=_quietly, args=(choose(), client), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server))
        self._open += [client, server]
        threading.Thread(target=_pump, args=(client, server), daemon=True).start()
        _pump(server, client)


class Spread:
    """A port before several addresses that gives each of them one request in turn, as balancers do that choose for each
    request: it asks for the connection's end behind the response."""

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        self._listener = _bound(0)
        self._listener.listen()
        self.port, self._turns = self._listener.getsockname()[1], itertools.cycle(addresses)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=_quietly, args=(self._pass, client), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        start = client.recv(65536)
        if not start:
            return  # opened in advance, and never used
        line, rest = start.split(b"\r\n", 1)
        server = socket.create_connection(next(self._turns))
        server.sendall(line + b"\r\nconnection: close\r\n" + rest)
        threading.Thread(target=_quietly, args=(lambda one: _pump(one, server), client), daemon=True).start()
        _pump(server, client)


class Kept:
    """A call that the server of `ts2/server.mjs` keeps open until it is released. It is there once this returns."""

    def __init__(self, url: str, server: int, host: str) -> None:
        self._direct, self._key = f"http://127.0.0.1:{server}/mcp", str(free_port())
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._hold, args=(url, host), daemon=True).start()
        self._call(self._direct, "held", host)
        self._host = host

    def release(self) -> str:
        """What the call was answered in the end."""
        self._call(self._direct, "release", self._host)
        return self._answers.get(timeout=SECONDS)

    def _hold(self, url: str, host: str) -> None:
        try:
            self._answers.put(self._call(url, "hold", host))
        except OSError as error:
            self._answers.put(repr(error))

    def _call(self, url: str, tool: str, host: str) -> str:
        about = {"protocolVersion": "2026-07-28", "clientInfo": {"name": "kept", "version": "1"}, "clientCapabilities": {}}
        meta = {f"io.modelcontextprotocol/{name}": what for name, what in about.items()}
        params = {"name": tool, "arguments": {"key": self._key}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        fields = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-protocol-version": "2026-07-28",
            "mcp-method": "tools/call",
            "mcp-name": tool,
            "x-kagent-host": host,
        }
        request = urllib.request.Request(url, body, fields)
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            text = answer.read().decode()
        said = re.search(r'"text":"(\w+)"', text)
        return said[1] if said else text


def _bound(port: int) -> socket.socket:
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", port))
    return held


def _quietly(serve: Callable[[socket.socket], None], client: socket.socket) -> None:
    try:
        serve(client)
    except OSError:
        client.close()


def _answer(client: socket.socket, answer: bytes) -> None:
    client.recv(65536)
    client.sendall(answer)
    client.shutdown(socket.SHUT_WR)
    while client.recv(65536):
        pass
    client.close()


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
