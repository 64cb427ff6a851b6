"""A stand-in for a proxy's admin listener: `/sight` and `/calls` as the admin API sends them, from a script that tests change."""

import copy
import http.server
import json
import queue
import socket
import threading

PARENT, TOOLS, HELPER = "team-a/parent", "tools.team-a", "helper.team-a"


def edge(source: str, to: str, protocol: str, state: str, **more: object) -> dict:
    return {"from": source, "to": to, "protocol": protocol, "state": state, "declared": True, "calls": 10,
            "errors": 0, "rate": 1.0, "errorRate": 0.0, "p50Ms": 3.0, "p99Ms": 20.0, "openStreams": 0} | more


def tool(name: str, method: str = "tools/call", **more: object) -> dict:
    return {"route": TOOLS, "caller": PARENT, "protocol": "mcp", "method": method, "tool": name, "declared": True,
            "calls": 5, "errors": 0, "rate": 0.5, "errorRate": 0.0, "p50Ms": 2.0, "p99Ms": 9.0} | more


SIGHT = {
    "at": "2026-11-27T18:00:00.000Z", "windowSeconds": 60,
    "totals": {"calls": 123, "errors": 4, "rate": 2.5, "errorRate": 0.1, "openRequests": 4, "openStreams": 3,
               "routes": 10, "refusedRoutes": 2},
    "edges": [
        edge(PARENT, TOOLS, "mcp", "ok", rate=3.0, openStreams=1),
        edge(PARENT, HELPER, "a2a", "slow", rate=2.0, p50Ms=6200.0, p99Ms=9000.0),
        edge("unknown", TOOLS, "mcp", "undeclared", declared=None, rate=1.0),
        edge(PARENT, "idle.team-b", "mcp", "unused", calls=0, rate=0.0, p50Ms=None, p99Ms=None),
    ],
    "tools": [
        tool("add"), tool("divide", errors=3, errorRate=0.2),
        tool("", "message/send", route=HELPER, protocol="a2a"),
    ],
    "streams": [{"route": TOOLS, "caller": PARENT, "path": "/mcp", "ageSeconds": 75.5, "session": "00000a1b"}],
    "sessions": [
        {"route": TOOLS, "opened": 2, "carried": 40, "revived": 1, "lost": 0, "answeredLost": 0, "closed": 1}],
    "truncated": False,
}
CALL = {
    "at": "2026-11-27T18:00:00.123Z", "route": TOOLS, "caller": PARENT, "protocol": "mcp", "method": "tools/call",
    "tool": "add", "error": "", "status": 200, "durationMs": 1.5, "peer": "10.0.0.7:4711", "path": "/mcp",
}


class Admin:
    """Listens until it is stopped, and on the same port when it is started again."""

    def __init__(self) -> None:
        self.sight = copy.deepcopy(SIGHT)
        self.changed = threading.Condition()
        self.readers: list[queue.Queue] = []
        self.asked: list[str] = []
        self.open: set[socket.socket] = set()
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        admin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                admin.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.stopping = threading.Event()
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """As a process that ends: nobody listens, and every connection breaks."""
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself
        with self.changed:
            # Their threads notice later; who reads from now on has come back.
            self.readers.clear()

    def show(self, change) -> None:
        """Changes the sight, and sends it to whoever follows it."""
        with self.changed:
            change(self.sight)
            self.changed.notify_all()

    def call(self, **more: object) -> None:
        self.tell("call", CALL | more)

    def tell(self, event: str, data: dict) -> None:
        with self.changed:
            for reader in self.readers:
                reader.put((event, data))

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        path = request.path.split("?")[0]
        streams = "text/event-stream" in request.headers.get("accept", "")
        self.open.add(request.connection)
        try:
            if path == "/sight" and streams:
                self.stream(request, self.moments())
            elif path == "/sight":
                self.whole(request, 200, json.dumps(self.sight))
            elif path == "/calls" and streams:
                self.stream(request, self.calls())
            else:
                self.whole(request, 404, "not found; endpoints: /livez /readyz\n")
        except OSError:
            pass  # the reader has gone
        finally:
            self.open.discard(request.connection)

    def whole(self, request: http.server.BaseHTTPRequestHandler, status: int, text: str) -> None:
        request.send_response(status)
        request.send_header("content-length", str(len(text)))
        request.end_headers()
        request.wfile.write(text.encode())

    def stream(self, request: http.server.BaseHTTPRequestHandler, events) -> None:
        request.close_connection = True
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.send_header("connection", "close")
        request.end_headers()
        for event in events:
            if self.stopping.is_set():
                return
            request.wfile.write(event.encode())
            request.wfile.flush()

    def moments(self):
        """The sight at once, when it changes, and each second."""
        while True:
            with self.changed:
                yield f"event: sight\ndata: {json.dumps(self.sight)}\n\n"
                self.changed.wait(1)

    def calls(self):
        mine: queue.Queue = queue.Queue()
        with self.changed:
            self.readers.append(mine)
        try:
            while True:
                try:
                    event, data = mine.get(timeout=1)
                    yield f"event: {event}\ndata: {json.dumps(data)}\n\n"
                except queue.Empty:
                    yield ": keep-alive\n\n"
        finally:
            with self.changed:
                if mine in self.readers:
                    self.readers.remove(mine)
