#!/usr/bin/env python3
"""Peers that die without a word (D16): no FIN, no RST, packets simply stop. And one that lives and does not read.

Usage: dead_peers.py PATH_OF_KAGENT_PROXY backend|client|stalled|reader. Makes three network namespaces (client, proxy,
backend), opens a stream through the proxy, takes the far end of a cable down, and waits until the other side
hears of it:

- backend: it is idle, so keepalive finds it: 30 s until the first probe and three of 10 s;
- client: it owes an acknowledgement for a keep-alive comment, so the proxy's own watch finds it;
- stalled: it had stopped reading before it died, and answers no probe of its window any more;
- reader: nothing is taken down (and the admin listener is asked from outside, since there is one here); the client does not read for longer than all of these limits, then reads on
  and must get everything.

Needs root and iproute2. Stops by itself and takes the namespaces away.
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
# A minute by D16, and room for a busy machine; far below any other limit. Probes of a window that has been
# closed for a while are a minute or two apart.
HEARD = {"backend": 100, "client": 100, "stalled": 180}
# More than all buffers on the way hold together.
LARGE = 96 << 20
# Longer than a dead peer would be given.
PAUSE = 90

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


FLOOD_CODE = f"""
import socket, threading
server = socket.create_server(("10.98.2.2", 8080))
def serve(call):
    call.recv(65536)
    try:
        call.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: {LARGE}\\r\\n\\r\\n")
        for _ in range({LARGE} >> 20):
            call.sendall(bytes(1 << 20))
        call.recv(1)
    except OSError:
        pass
    print("gone", flush=True)
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

READER_CODE = f"""
import socket, time
call = socket.create_connection(("10.98.1.1", 8080))
call.sendall(b"GET / HTTP/1.1\\r\\nhost: p\\r\\nx-kagent-host: s.ns\\r\\n\\r\\n")
seen = b""
while b"\\r\\n\\r\\n" not in seen:
    seen += call.recv(4096)
print("open", flush=True)
# The pause is what is tested.
time.sleep({PAUSE})
rest = {LARGE} - len(seen.split(b"\\r\\n\\r\\n", 1)[1])
try:
    while rest and (more := call.recv(1 << 20)):
        rest -= len(more)
except OSError:
    pass
print("abort" if rest else "whole", flush=True)
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


def outside() -> None:
    """Who asks from outside the pod is told readiness and numbers, and nothing of routes (D31)."""
    code = "import http.client; c = http.client.HTTPConnection('{}:{}', timeout=20); c.request('{}', '{}'); "
    code += "print(c.getresponse().status)"
    # A peer on loopback proves nothing: behind a mesh's sidecar all are.
    for namespace, host, port in ((CLIENT, "10.98.1.1", 9090), (PROXY, "127.0.0.1", 9090), (PROXY, "127.0.0.1", 9091)):
        for method, path, closed in (
            ("GET", "/livez", False),
            ("GET", "/readyz", False),
            ("GET", "/metrics", False),
            ("GET", "/routes", True),
            ("GET", "/config", True),
            ("GET", "/explain?host=s.ns", True),
            ("POST", "/drain", True),
        ):
            if path == "/drain" and port == 9091:
                continue
            asked = code.format(host, port, method, path)
            command = ["ip", "netns", "exec", namespace, sys.executable, "-c", asked]
            status = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            expected = "403" if closed and port == 9090 else "200"
            assert status == expected, f"{method} {path} of {port} from {namespace}: {status}, not {expected}"
    # The other socket is not there at all for whoever is outside.
    code = "import socket; s = socket.socket(); s.settimeout(20); print(s.connect_ex(('10.98.1.1', 9091)))"
    command = ["ip", "netns", "exec", CLIENT, sys.executable, "-c", code]
    refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert refused == "111", f"9091 from outside: {refused}, not ECONNREFUSED"


def stalled() -> None:
    """Until the client's window is closed: the proxy probes it (timer 04 in /proc/net/tcp)."""
    for _ in range(300):
        table = subprocess.run(
            ["ip", "netns", "exec", PROXY, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True
        ).stdout
        if any(line.split()[5].startswith("04:") for line in table.splitlines()[1:]):
            return
        time.sleep(0.1)
    raise AssertionError("the client's window never closed")


def scenario(dead: str) -> None:
    started: list[subprocess.Popen] = []
    try:
        for namespace in (CLIENT, PROXY, BACKEND):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        cable(PROXY, CLIENT, "10.98.1")
        cable(PROXY, BACKEND, "10.98.2")
        flooded = dead in ("stalled", "reader")
        backend = start(BACKEND, sys.executable, "-c", FLOOD_CODE if flooded else BACKEND_CODE)
        started.append(backend)
        expect(backend.stdout, "ready", 20)
        flags = ["--listen", "10.98.1.1:8080", "--admin", "0.0.0.0:9090"]
        flags += ["--route", "s.ns=10.98.2.2:8080", "--log-format", "json"]
        proxy = start(PROXY, PROGRAM, "run", *flags)
        started.append(proxy)
        expect(proxy.stderr, "serving", 20)
        client = start(CLIENT, sys.executable, "-c", READER_CODE if flooded else CLIENT_CODE)
        started.append(client)
        expect(client.stdout, "open", 20)
        before = time.monotonic()
        if dead == "backend":
            ip("-n", BACKEND, "link", "set", f"{TAG}2b", "down")
            expect(client.stdout, "abort", HEARD[dead])
            expect(proxy.stderr, '"outcome":"upstream_broke"', 20)
        elif dead == "reader":
            outside()
            expect(client.stdout, "whole", PAUSE + 60)
            expect(proxy.stderr, '"outcome":"complete"', 20)
        else:
            if dead == "stalled":
                stalled()
            ip("-n", CLIENT, "link", "set", f"{TAG}1b", "down")
            expect(backend.stdout, "gone", HEARD[dead])
            expect(proxy.stderr, '"outcome":"client_gone"', 20)
        print(f"ok {dead}: after {time.monotonic() - before:.0f} s", flush=True)
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
