"""A client of MCP sessions, as bytes allow it: one request by this replica of the proxy, the next by that one.

What the servers have seen is read from the marks of `mcp_server.py`. Knows nothing of pods but their addresses.
"""

import dataclasses
import http.client
import itertools
import json
import pathlib
import threading
import time

from api import LOST, until

PORT = 8080
VERSION = "2025-06-18"
HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclasses.dataclass
class Answer:
    """One response."""

    status: int
    session: str | None
    reason: str | None
    text: str

    @property
    def message(self) -> dict:
        """The JSON-RPC answer, alone or in an event stream."""
        lines = [line.removeprefix("data:") for line in self.text.splitlines() if line.startswith("data:")]
        messages = [json.loads(line) for line in lines or [self.text] if line.strip()]
        return next((m for m in messages if "id" in m and "method" not in m), {})

    @property
    def said(self) -> dict:
        """What the tool said; its status and text where it said nothing."""
        result = self.message.get("result", {})
        if self.status != 200 or not result or result.get("isError"):
            return {"status": self.status, "reason": self.reason, "text": self.text}
        return json.loads(result["content"][0]["text"])

    @property
    def is_lost(self) -> bool:
        """The call's fate is unknown, and the answer says so in the form that no client repeats."""
        result = self.message.get("result", {})
        return self.status == 200 and bool(result.get("isError"))


class Session:
    """One session at one host; `proxy` is the address of the replica that a request goes to."""

    def __init__(self, host: str, name: str, version: str = "1") -> None:
        self.host, self.name = host, name
        self.params = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": name, "version": version}}
        self.id: str | None = None
        self.numbers = itertools.count(1)

    def headers(self) -> dict[str, str]:
        fields = HEADERS | {"x-kagent-host": self.host}
        return fields | ({"mcp-session-id": self.id, "mcp-protocol-version": VERSION} if self.id else {})

    def send(self, proxy: str, method: str, message: dict | None = None, timeout: float = 40) -> Answer:
        connection = http.client.HTTPConnection(proxy, PORT, timeout=timeout)
        try:
            connection.request(method, "/mcp", json.dumps(message).encode() if message else None, self.headers())
            answer = connection.getresponse()
            fields = (answer.getheader("mcp-session-id"), answer.getheader("x-kagent-proxy-error"))
            return Answer(answer.status, *fields, answer.read().decode())
        finally:
            connection.close()

    def initialize(self, proxy: str) -> "Session":
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": self.params}
        answer = self.send(proxy, "POST", message)
        assert answer.status == 200 and answer.session, answer
        self.id = answer.session
        return self

    def begin(self, proxy: str) -> "Session":
        self.initialize(proxy)
        ready = self.send(proxy, "POST", {"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert ready.status == 202, ready
        return self

    def call(self, proxy: str, tool: str, **more) -> Answer:
        """Calls a tool; each call has a name of its own, by which the marks know it."""
        number = next(self.numbers)
        params = {"name": tool, "arguments": {"call": f"{self.name}-{number}"}}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        answer = self.send(proxy, "POST", message, **more)
        assert answer.session in (None, self.id), f"{answer.session} is not {self.id}"
        return answer

    def count(self, proxy: str) -> tuple[str, int]:
        """The pod that counted, and how many calls it has seen of this session; nothing else is an answer."""
        said = self.call(proxy, "count").said
        assert "count" in said, (self.name, said)
        return said["pod"], said["count"]

    def end(self, proxy: str) -> Answer:
        return self.send(proxy, "DELETE")


class Stream(threading.Thread):
    """A session's own event stream, open until its other end ends it."""

    def __init__(self, session: Session, proxy: str) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(proxy, PORT, timeout=300)
        self.connection.request("GET", "/mcp", headers=session.headers() | {"Accept": "text/event-stream"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, (self.answer.status, self.answer.read())
        self.events: list[str] = []
        self.start()

    def run(self) -> None:
        try:
            while line := self.answer.readline():
                if line.startswith(b"data:"):
                    self.events.append(line.decode().removeprefix("data:").strip())
        except (*LOST, ValueError, AttributeError):
            pass  # what http.client does when it is closed by another thread

    def close(self) -> None:
        if self.connection.sock is not None:
            self.connection.close()


class Marks:
    """What the servers were asked."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def all(self) -> list[dict]:
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def of(self, what: str, name: str) -> list[dict]:
        """Those of one client: its calls, or the sessions that begin in its name."""

        def client(mark: dict) -> str | None:
            return mark["call"].rpartition("-")[0] if mark["call"] else (mark["client"] or {}).get("name")

        return [mark for mark in self.all() if mark["what"] == what and client(mark) == name]

    def once(self, name: str) -> None:
        """No call of this client was run twice."""
        calls = [mark["call"] for mark in self.of("tools/call", name)]
        assert len(calls) == len(set(calls)), sorted(call for call in set(calls) if calls.count(call) > 1)

    def homes(self, name: str) -> list[str]:
        """The sessions at the servers that this client's calls went to, one after another: never back and forth."""
        way = [session for session, _ in itertools.groupby(mark["session"] for mark in self.of("tools/call", name))]
        assert len(way) == len(set(way)), f"{name} was split: {way}"
        return way


class Caller(threading.Thread):
    """Counts on in one session, by whichever replica is there, until it is told to stop."""

    def __init__(self, session: Session, proxies) -> None:
        super().__init__(daemon=True, name=session.name)
        self.session, self.proxies = session, proxies
        self.answers: list[tuple[str, int]] = []
        self.lost = 0
        # Of the seconds in which every call was lost, the most at a stretch.
        self.longest, self.since = 0.0, time.monotonic()
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        for turn in itertools.count():
            if self.stopping.is_set():
                return
            try:
                there = self.proxies()
                answer = self.session.call(there[turn % len(there)], "count")
                if answer.is_lost:
                    self.lost += 1
                    self.longest = max(self.longest, time.monotonic() - self.since)
                elif "count" in answer.said:
                    self.since = time.monotonic()
                    self.answers.append((answer.said["pod"], answer.said["count"]))
                else:
                    self.failures.append(str(answer.said))
            except (*LOST, AssertionError, KeyError, ZeroDivisionError) as error:
                self.failures.append(f"{type(error).__name__} {error}")

    def more(self, count: int = 2) -> None:
        """Returns when so many more calls were answered."""
        wanted = self.ended() + count
        until(lambda: self.ended() >= wanted, 60, lambda: f"{self.name}: {self.failures}")

    def ended(self) -> int:
        return len(self.answers) + self.lost + len(self.failures)

    def stop(self) -> None:
        self.stopping.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} waits"
