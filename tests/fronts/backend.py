"""A backend that speaks raw HTTP/1.1 and tells what it has seen, for requests that come through several proxies.

Knows no proxy. Each path has one manner, in `_serve`.
"""

import base64
import collections
import contextlib
import hashlib
import json
import re
import socket
import threading

# Nothing here takes longer; what does has failed.
BOUND = 20
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def read_head(sock: socket.socket, rest: bytes = b"") -> tuple[bytes, bytes]:
    """A head, and what came behind it; empty if the connection ended."""
    while b"\r\n\r\n" not in rest:
        more = sock.recv(65536)
        if not more:
            return b"", rest
        rest += more
    head, rest = rest.split(b"\r\n\r\n", 1)
    return head, rest


def fields_of(head: bytes) -> dict[str, str]:
    """Fields by lower-case name; several of one name are joined."""
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, value = line.split(":", 1)
        name, value = name.strip().lower(), value.strip()
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return fields


def read_chunked(sock: socket.socket, rest: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """A body of chunks, its trailers, and what came behind."""
    body = b""

    def line() -> bytes:
        nonlocal rest
        while b"\r\n" not in rest:
            more = sock.recv(65536)
            assert more, "cut off inside chunks"
            rest += more
        first, rest = rest.split(b"\r\n", 1)
        return first

    def take(count: int) -> bytes:
        nonlocal rest
        while len(rest) < count:
            more = sock.recv(65536)
            assert more, "cut off inside a chunk"
            rest += more
        first, rest = rest[:count], rest[count:]
        return first

    while size := int(line().split(b";")[0], 16):
        body += take(size)
        take(2)
    trailers = {}
    while trailer := line():
        name, value = trailer.decode("latin-1").split(":", 1)
        trailers[name.strip().lower()] = value.strip()
    return body, trailers, rest


class Stream:
    """An open event stream, by the query of its request."""

    def __init__(self) -> None:
        # It sends its second event when this is set.
        self.go_on = threading.Event()
        # Its client has left.
        self.left = threading.Event()
        # It has ended, one way or the other.
        self.over = threading.Event()


class Backend:
    """Listens on a free port until the program ends."""

    def __init__(self) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.streams: collections.defaultdict[str, Stream] = collections.defaultdict(Stream)
        # How often `/count` was asked, by what stands behind it.
        self.counts: dict[str, int] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            sock, _ = self.server.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._connection, args=(sock,), daemon=True).start()

    def _connection(self, sock: socket.socket) -> None:
        rest = b""
        try:
            while True:
                head, rest = read_head(sock, rest)
                if not head:
                    return
                fields = fields_of(head)
                if fields.get("transfer-encoding") == "chunked":
                    body, _, rest = read_chunked(sock, rest)
                else:
                    length = int(fields.get("content-length", 0))
                    while len(rest) < length:
                        more = sock.recv(1 << 20)
                        if not more:
                            return
                        rest += more
                    body, rest = rest[:length], rest[length:]
                if not self._serve(sock, head, fields, body) or fields.get("connection") == "close":
                    return
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                # Also where another thread reads from it.
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _serve(self, sock: socket.socket, head: bytes, fields: dict, body: bytes) -> bool:
        """Whether the connection goes on."""
        method, target, version = head.decode("latin-1").split("\r\n", 1)[0].split(" ")
        path = target.split("?")[0]

        def say(status: str, text: bytes, more: str = "") -> bool:
            length = "" if status.startswith(("204", "304")) else f"content-length: {len(text)}\r\n"
            text = b"" if method == "HEAD" or not length else text
            sock.sendall(f"HTTP/1.1 {status}\r\n{length}{more}\r\n".encode() + text)
            return True

        if path == "/echo":
            seen = {
                "method": method, "target": target, "body": hashlib.sha256(body).hexdigest(),
                "length": len(body), "fields": fields,
            }
            return say("200 OK", json.dumps(seen).encode(), "content-type: application/json\r\n")
        if path == "/large":
            return say("200 OK", b"0123456789abcdef" * (5 << 16), "content-type: a/b\r\n")
        if path == "/nothing":
            return say("204 No Content", b"")
        if path == "/same":
            return say("304 Not Modified", b"", 'etag: "7"\r\n')
        if path == "/late":
            return say("503 Service Unavailable", b"later", "retry-after: 7\r\nx-reason: deploy\r\n")
        if path.startswith("/count/"):
            self.counts[path] = self.counts.get(path, 0) + 1
            return say("503 Service Unavailable", b"never")
        if path == "/redirect":
            return say("307 Temporary Redirect", b"", f"location: http://{fields['host']}/echo?here\r\n")
        if path == "/.well-known/agent-card.json":
            card = {"name": "h", "url": f"http://{fields['host']}/rpc"}
            return say("200 OK", json.dumps(card).encode(), "content-type: application/json\r\n")
        if path == "/trailers" and version == "HTTP/1.0":
            sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc")
            return False
        if path == "/trailers":
            sock.sendall(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
                b"3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n"
            )
            return True
        if path in ("/events", "/events-unbuffered"):
            chunked = version != "HTTP/1.0"
            more = "x-accel-buffering: no\r\n" if path == "/events-unbuffered" else ""
            self._events(sock, more, chunked, self.streams[target.partition("?")[2]])
            return False
        if path == "/socket" and fields.get("upgrade", "").lower() == "websocket":
            self._websocket(sock, fields)
            return False
        return say("404 Not Found", b"")

    @staticmethod
    def _events(sock: socket.socket, more: str, chunked: bool, stream: Stream) -> None:
        """HTTP/1.0 knows no chunks: nginx asks by it."""
        how = "transfer-encoding: chunked\r\nconnection: close" if chunked else "connection: close"
        one, two = b"data: 1\n\n", b"data: 2\n\n"
        if chunked:
            one, two = b"9\r\n" + one + b"\r\n", b"9\r\n" + two + b"\r\n0\r\n\r\n"
        sock.sendall(f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{how}\r\n{more}\r\n".encode() + one)

        def watch() -> None:
            with contextlib.suppress(OSError):
                sock.recv(1)
            if not stream.go_on.is_set():
                stream.left.set()
            stream.over.set()

        def go_on() -> None:
            stream.go_on.wait()
            with contextlib.suppress(OSError):
                sock.sendall(two)
            stream.over.set()

        for job in (watch, go_on):
            threading.Thread(target=job, daemon=True).start()
        stream.over.wait()

    @staticmethod
    def _websocket(sock: socket.socket, fields: dict) -> None:
        """Gives the bytes of one frame back."""
        digest = hashlib.sha1(fields["sec-websocket-key"].encode() + WEBSOCKET).digest()
        accept = base64.b64encode(digest).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        sock.sendall(f"{head}sec-websocket-accept: {accept}\r\n\r\n".encode())
        sock.sendall(sock.recv(65536))
        sock.recv(1)


def status_of(head: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d+)", head)
    assert found, head
    return int(found.group(1))
