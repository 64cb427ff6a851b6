"""What the admin's feed of calls shows while they end: `GET /calls` read as JSON, and what `kagent-proxy tap` prints.

Each call is told in the same words: who, where, protocol, method, tool, and how it ended. Knows no server and no
client.
"""

import collections
import http.client
import json
import subprocess
import threading

from api import LOST, until

ADMIN = ("127.0.0.1", 9091)
# As `/calls` calls them.
WORDS = ("caller", "route", "protocol", "method", "tool", "error")
# Those of `tap`, in their order; none may be empty.
COLUMNS = ("at", "caller", "route", "protocol", "method", "tool", "status", "error", "took")


class Calls:
    """`GET /calls` of a proxy's pod, read until it is closed."""

    def __init__(self, pod, timeout: float = 120) -> None:
        self.connection = http.client.HTTPConnection(*ADMIN, timeout=timeout)
        self.connection.sock = pod.place.socket(ADMIN, timeout)
        self.connection.request("GET", "/calls", headers={"Accept": "text/event-stream"})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, (self.answer.status, self.answer.read())
        self.events: list[dict] = []
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *_) -> None:
        self.connection.close()

    def _read(self) -> None:
        try:
            while line := self.answer.readline():
                if line.startswith(b"data:"):
                    self.events.append(json.loads(line.removeprefix(b"data:")))
        except (*LOST, ValueError, AttributeError):
            pass  # what http.client does when it is closed by another thread

    def seen(self) -> list[dict]:
        """Also what says that calls are missing, which is no call."""
        return list(self.events)


class Tap:
    """`kagent-proxy tap` in a proxy's pod, as it prints for people."""

    def __init__(self, program: str, pod) -> None:
        command = ["ip", "netns", "exec", pod.place.name, program, "tap", "--admin", "http://%s:%d" % ADMIN]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        # Its titles come once it listens.
        until(lambda: self.lines, 20, lambda: f"tap says nothing, and ended with {self.process.poll()}")

    def __enter__(self) -> "Tap":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait(10)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)

    def seen(self) -> list[dict]:
        titles, *lines = list(self.lines)
        assert titles.startswith("TIME (UTC)") and titles.split()[-1] == "TOOK", titles
        cells = [["" if word == "-" else word for word in line.split()] for line in lines]
        return [dict(zip(COLUMNS, words, strict=True)) for words in cells]


def told(seen: list[dict], of: str) -> collections.Counter:
    """How often each call was shown to routes whose host ends so; of any other event there is a fault."""
    return collections.Counter(tuple(call[word] for word in WORDS) for call in seen if call["route"].endswith(of))
