#!/usr/bin/env python3
"""Peers that die without a word (D16): no FIN, no RST, packets simply stop.

Usage: dead_peers.py PATH_OF_KAGENT_PROXY backend|client. Makes three network namespaces (client, proxy, backend), opens
event streams through the proxy, takes the far end of a cable down, and waits until the other side hears of
it: 30 s until the first probe and three probes of 10 s, so about a minute. Needs root and iproute2. Stops
by itself and takes the namespaces away.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time

PROGRAM = str(pathlib.Path(sys.argv[1]).resolve())
ROOT = pathlib.Path(__file__).resolve().parent.parent
TAG = f"kp{os.getpid() % 10000}"
CLIENT, PROXY, BACKEND = (f"{TAG}-{name}" for name in ("client", "proxy", "backend"))
# A minute by D16, and room for a busy machine; far below any other limit.
HEARD = 100

BACKEND_CODE = """
import socket, threading
server = socket.create_server(("10.98.2.2", 8080))
def serve(call):
    call.recv(65536)
    call.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n\\r\\ndata: 1\\n\\n")
    try:
        call.recv(1)
    except OSError:
        pass
    print("gone", flush=True)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

CLIENT_CODE = """
import socket
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"GET /mcp HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\n\\r\\n")
seen = b""
while b"data: 1" not in seen:
    seen += call.recv(65536)
print("open", flush=True)
seen = b""
try:
    while more := call.recv(65536):
        seen += more
except OSError:
    pass
print("clean" if seen.endswith(b"0\\r\\n\\r\\n") else "abort", flush=True)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def mac(namespace: str, link: str) -> str:
    path = f"/sys/class/net/{link}/address"
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, "cat", path], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def cable(left: str, right: str, net: str) -> None:
    """Two namespaces with addresses .1 and .2, whose neighbours are known for good."""
    a, b = f"{TAG}{net[-1]}a", f"{TAG}{net[-1]}b"
    ip("link", "add", a, "netns", left, "type", "veth", "peer", "name", b, "netns", right)
    for namespace, link, host in ((left, a, 1), (right, b, 2)):
        ip("-n", namespace, "addr", "add", f"{net}.{host}/24", "dev", link)
        ip("-n", namespace, "link", "set", link, "up")
    ip("-n", left, "neigh", "replace", f"{net}.2", "lladdr", mac(right, b), "dev", a)
    ip("-n", right, "neigh", "replace", f"{net}.1", "lladdr", mac(left, a), "dev", b)


def start(namespace: str, *command: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["ip", "netns", "exec", namespace, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if command[0] == PROGRAM else None,
        text=True,
    )


def expect(stream, word: str, within: float) -> None:
    """The next line that has this word; its absence is the failure."""
    found: list[str] = []

    def read() -> None:
        while line := stream.readline():
            if word in line:
                found.append(line)
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(within)
    assert found, f"no {word!r} within {within} s"


def scenario(dead: str) -> None:
    started: list[subprocess.Popen] = []
    try:
        for namespace in (CLIENT, PROXY, BACKEND):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        cable(PROXY, CLIENT, "10.98.1")
        cable(PROXY, BACKEND, "10.98.2")
        backend = start(BACKEND, sys.executable, "-c", BACKEND_CODE)
        started.append(backend)
        expect(backend.stdout, "ready", 20)
        flags = ["--listen", "10.98.1.1:8080", "--admin", "127.0.0.1:9090"]
        flags += ["--route", "s.ns=10.98.2.2:8080", "--log-format", "json"]
        proxy = start(PROXY, PROGRAM, "run", *flags)
        started.append(proxy)
        expect(proxy.stderr, "serving", 20)
        client = start(CLIENT, sys.executable, "-c", CLIENT_CODE)
        started.append(client)
        expect(client.stdout, "open", 20)
        before = time.monotonic()
        if dead == "backend":
            ip("-n", BACKEND, "link", "set", f"{TAG}2b", "down")
            expect(client.stdout, "abort", HEARD)
            expect(proxy.stderr, '"outcome":"upstream_broke"', 20)
        else:
            ip("-n", CLIENT, "link", "set", f"{TAG}1b", "down")
            expect(backend.stdout, "gone", HEARD)
            expect(proxy.stderr, '"outcome":"client_gone"', 20)
        print(f"ok a dead {dead} was noticed after {time.monotonic() - before:.0f} s", flush=True)
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGKILL)
            process.wait()
        for namespace in (CLIENT, PROXY, BACKEND):
            subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


if shutil.which("ip") is None:
    subprocess.run(["apt-get", "update", "-qq"], check=True, timeout=300)
    subprocess.run(["apt-get", "install", "-y", "-qq", "iproute2"], check=True, timeout=300)
scenario(sys.argv[2])
