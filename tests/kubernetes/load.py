#!/usr/bin/env python3
"""Clients of rolling restarts: they call through the proxy until their input ends, then say how it went.

Usage: load.py PROXY_ADDRESS PORT THREADS HOST=PATH... Each thread calls one host, half of them on a connection that
they keep, the other half on a fresh one for every call; every second call is a POST, and each says in its query which
one it is. Prints one line of JSON: calls, the failed ones, the first answer of each pod by the machine's monotonic
clock. A process of its own, so that the test's own work does not slow it.
"""

import http.client
import json
import sys
import threading
import time

# Pods are called about as often as two busy agents call; more would only take the test's processors.
PAUSE = 0.01
TIMEOUT = 30
# Refusals that come before anything was sent to a backend: to try elsewhere is always legal (D11).
UNSENT = {"connect_failed", "connect_timeout", "no_ready_endpoint", "unknown_target", "overloaded"}


class Client(threading.Thread):
    """One caller of one host."""

    def __init__(
        self, number: int, place: tuple[str, int], host: str, path: str, kept: bool, stop: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.place, self.host, self.path, self.kept, self.stop = place, host, path, kept, stop
        self.calls = 0
        # Name, method and what went wrong.
        self.failed: list[tuple[str, str, str]] = []
        self.first: dict[str, float] = {}
        self.connection: http.client.HTTPConnection | None = None

    def run(self) -> None:
        while not self.stop.wait(PAUSE):
            method = "POST" if self.calls % 2 else "GET"
            self.calls += 1
            try:
                fault = self.call(method)
            except (OSError, http.client.HTTPException, ValueError) as error:
                fault = f"client saw {type(error).__name__}"
            if fault:
                self.failed.append((self.name_of_call(), method, fault))
                self.drop()
            elif not self.kept:
                self.drop()

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def name_of_call(self) -> str:
        return f"{self.number}-{self.calls}"

    def call(self, method: str) -> str | None:
        """What went wrong."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(*self.place, timeout=TIMEOUT)
        body = b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}' if method == "POST" else None
        path = f"{self.path}&call={self.name_of_call()}"
        self.connection.request(method, path, body, {"x-kagent-host": self.host})
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            return f"{answer.status} {answer.getheader('x-kagent-proxy-error')}"
        self.first.setdefault(json.loads(text)["pod"], time.monotonic())
        return None


def legally(failure: str) -> bool:
    """Whether a request that failed so, as "METHOD fault", could have been tried again if D11 is read generously.

    A GET without a body may be sent again when a reused connection closed before its answer. Whether it was
    reused is for the caller to know.
    """
    method, *rest = failure.split(" ")
    return rest[-1] in UNSENT or method == "GET"


def main() -> None:
    address, port, threads, *targets = sys.argv[1:]
    stop = threading.Event()
    clients = []
    for number in range(int(threads)):
        host, path = targets[number % len(targets)].split("=", 1)
        clients.append(Client(number, (address, int(port)), host, path, number // len(targets) % 2 == 0, stop))
    for client in clients:
        client.start()
    sys.stdin.read()
    stop.set()
    failed: list[tuple[str, str, str]] = []
    first: dict[str, float] = {}
    for client in clients:
        client.join(TIMEOUT + 5)
        failed += client.failed
        for pod, at in client.first.items():
            first[pod] = min(at, first.get(pod, at))
    print(json.dumps({"calls": sum(client.calls for client in clients), "failed": failed, "first": first}))


if __name__ == "__main__":
    main()
