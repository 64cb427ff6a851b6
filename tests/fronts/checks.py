"""What a client sees through any arrangement of proxies: one function for each check, which returns what it saw.

`connect` opens a connection to the arrangement, `backend` is what it leads to. Knows no proxy.
"""

import base64
import hashlib
import itertools
import json
import socket
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

from backend import BOUND, Backend, Stream, fields_of, read_chunked, read_head, status_of

HOST = "raw.ns"
Connect = Callable[[], socket.socket]
# How long an event may take that nobody holds back.
UNDELAYED = 3
NUMBERS = itertools.count()


class Answer:
    """One response."""

    def __init__(self, sock: socket.socket, method: str, rest: bytes = b"") -> None:
        head, rest = read_head(sock, rest)
        assert head, "closed without a response"
        self.head, self.status, self.fields = head, status_of(head), fields_of(head)
        self.trailers: dict[str, str] = {}
        if method == "HEAD" or self.status in (101, 204, 304):
            self.body = b""
        elif "chunked" in self.fields.get("transfer-encoding", ""):
            self.body, self.trailers, rest = read_chunked(sock, rest)
        elif "content-length" in self.fields:
            length = int(self.fields["content-length"])
            while len(rest) < length:
                more = sock.recv(1 << 20)
                assert more, f"cut off after {len(rest)} of {length}"
                rest += more
            self.body, rest = rest[:length], rest[length:]
        else:
            while more := sock.recv(1 << 20):
                rest += more
            self.body, rest = rest, b""
        self.rest = rest

    def json(self) -> dict:
        return json.loads(self.body)


def head_of(method: str, path: str, more: str = "", version: str = "1.1") -> bytes:
    host = "Host: front.example:8000\r\n"
    return f"{method} {path} HTTP/{version}\r\n{host}x-kagent-host: {HOST}\r\n{more}\r\n".encode()


def ask(connect: Connect, method: str, path: str, more: str = "", body: bytes = b"") -> Answer:
    with connect() as sock:
        sock.settimeout(BOUND)
        length = f"content-length: {len(body)}\r\n" if body else ""
        sock.sendall(head_of(method, path, more + length) + body)
        return Answer(sock, method)


def echo(connect: Connect, backend: Backend) -> object:
    more = "x-test: a, b\r\nx-kagent-user: u\r\nauthorization: Bearer t\r\nmcp-name: =?base64?w6k=?=\r\n"
    seen = ask(connect, "GET", "/echo?x=%20&y", more).json()
    named = ("x-test", "x-kagent-user", "authorization", "mcp-name")
    return seen["method"], seen["target"], [seen["fields"].get(name) for name in named]


def upload(connect: Connect, backend: Backend) -> object:
    seen = ask(connect, "POST", "/echo", "content-type: a/b\r\n", b"abcdefgh" * (3 << 17)).json()
    return seen["length"], seen["body"]


def upload_chunked(connect: Connect, backend: Backend) -> object:
    with connect() as sock:
        sock.settimeout(BOUND)
        sock.sendall(head_of("POST", "/echo", "transfer-encoding: chunked\r\n"))
        for _ in range(100):
            sock.sendall(b"4\r\nabcd\r\n")
        sock.sendall(b"0\r\n\r\n")
        seen = Answer(sock, "POST").json()
    return seen["length"], seen["body"]


def download(connect: Connect, backend: Backend) -> object:
    return hashlib.sha256(ask(connect, "GET", "/large").body).hexdigest()


def without_bodies(connect: Connect, backend: Backend) -> object:
    asked = [("HEAD", "/large"), ("GET", "/nothing"), ("GET", "/same")]
    answers = [ask(connect, *one) for one in asked]
    return [(answer.status, answer.body.decode(), answer.fields.get("etag")) for answer in answers]


def one_connection(connect: Connect, backend: Backend) -> object:
    """Three requests on one connection."""
    with connect() as sock:
        sock.settimeout(BOUND)
        found = []
        for number in range(3):
            sock.sendall(head_of("GET", f"/echo?{number}"))
            found.append(Answer(sock, "GET").json()["target"])
        return found


def old_client(connect: Connect, backend: Backend) -> object:
    """HTTP/1.0 knows no chunks: the body ends with the connection, or has a length."""
    with connect() as sock:
        sock.settimeout(BOUND)
        sock.sendall(head_of("GET", "/trailers", version="1.0"))
        answer = Answer(sock, "GET")
        return answer.status, answer.body.decode(), "transfer-encoding" in answer.fields


def errors(connect: Connect, backend: Backend) -> object:
    answer = ask(connect, "GET", "/late")
    return answer.status, answer.body.decode(), answer.fields.get("retry-after"), answer.fields.get("x-reason")


def redirect(connect: Connect, backend: Backend) -> object:
    """Where a client is sent that follows it."""
    answer = ask(connect, "GET", "/redirect")
    to = urlsplit(urljoin("http://front.example:8000/redirect", answer.fields["location"]))
    # nginx writes its own port.
    return answer.status, to.hostname, f"{to.path}?{to.query}"


def trailers(connect: Connect, backend: Backend) -> object:
    answer = ask(connect, "GET", "/trailers", "te: trailers\r\nconnection: te\r\n")
    return answer.status, answer.body.decode(), answer.trailers


def open_stream(connect: Connect, backend: Backend, path: str) -> tuple[socket.socket, Stream]:
    """A stream of its own, on both ends."""
    name = f"stream-{next(NUMBERS)}"
    sock = connect()
    sock.settimeout(BOUND)
    sock.sendall(head_of("GET", f"{path}?{name}", "accept: text/event-stream\r\n"))
    return sock, backend.streams[name]


def until(sock: socket.socket, word: bytes, seen: bytes = b"") -> bytes:
    while word not in seen:
        more = sock.recv(65536)
        assert more, f"closed before {word!r}: {seen!r}"
        seen += more
    return seen


def _events(connect: Connect, backend: Backend, path: str) -> object:
    """Whether the first event comes before the second one has been sent; and that both come."""
    sock, stream = open_stream(connect, backend, path)
    with sock:
        sock.settimeout(UNDELAYED)
        seen = b""
        try:
            seen, how = until(sock, b"data: 1\n\n"), "undelayed"
        except TimeoutError:
            how = "delayed"
        sock.settimeout(BOUND)
        stream.go_on.set()
        until(sock, b"data: 2\n\n", seen)
    return how


def events(connect: Connect, backend: Backend) -> object:
    return _events(connect, backend, "/events")


def events_unbuffered(connect: Connect, backend: Backend) -> object:
    return _events(connect, backend, "/events-unbuffered")


def cancel(connect: Connect, backend: Backend) -> object:
    """The backend hears of it when its client leaves in mid-stream."""
    sock, stream = open_stream(connect, backend, "/events-unbuffered")
    with sock:
        until(sock, b"data: 1\n\n")
    return stream.left.wait(BOUND)


def websocket(connect: Connect, backend: Backend) -> object:
    key = base64.b64encode(b"0123456789abcdef").decode()
    more = f"upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n"
    with connect() as sock:
        sock.settimeout(BOUND)
        sock.sendall(head_of("GET", "/socket", more))
        answer = Answer(sock, "GET")
        if answer.status != 101:
            return answer.status
        frame = b"\x81\x82\x00\x00\x00\x00hi"
        sock.sendall(frame)
        return answer.status, until(sock, frame, answer.rest) == frame


ALL = (
    echo, upload, upload_chunked, download, without_bodies, one_connection, old_client, errors, redirect, trailers,
    events, events_unbuffered, cancel, websocket,
)


def all_of(connect: Connect, backend: Backend) -> dict[str, object]:
    """What each check saw; an exception is something that was seen, too, and equals no result."""
    seen: dict[str, object] = {}
    for check in ALL:
        try:
            seen[check.__name__] = check(connect, backend)
        except Exception as error:  # whatever it was, the check did not come to its end
            seen[check.__name__] = f"{type(error).__name__}: {error}"[:300]
    return seen
