"""Many clients with one address, as behind the egress gateway of kagent 1.0.

Asks kagent-proxy only; counts its descriptors and its memory from outside.
"""

import asyncio
import pathlib
import re
import socket
import time

import proxies
from backend import BOUND, Backend, status_of
from checks import ask, open_stream
from checks import until as checks_until
from harness import Results, Stage, free_port

SHORT = 4000
AT_ONCE = 100
WAITING = 500
STREAMS = 400


def descriptors(pid: int) -> int:
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def resident(pid: int) -> int:
    """KiB."""
    found = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found.group(1))


def metrics(admin: int) -> str:
    with socket.create_connection(("127.0.0.1", admin), timeout=BOUND) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        text = b""
        while more := sock.recv(1 << 20):
            text += more
    return text.decode()


def metric(admin: int, name: str) -> float:
    """The sum of its series."""
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([0-9.e+]+)", metrics(admin), re.M)
    return sum(map(float, found))


def until(what: str, holds, seconds: float = BOUND) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            print(f"# never: {what}", flush=True)
            return False
        time.sleep(0.05)  # between two looks
    return True


async def _quick(port: int, ok: bytes) -> None:
    """A backend in this very loop, so that thousands of requests take seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(ok)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


async def _ask_all(port: int, request: bytes, count: int, at_once: int) -> dict[int, int]:
    """Statuses, each request on a connection of its own."""
    statuses: dict[int, int] = {}
    turns = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with turns:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request)
                answer = await asyncio.wait_for(reader.read(), 60)
                writer.close()
                status = status_of(answer) if answer else 0
            except (OSError, TimeoutError):
                status = -1
            statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(one() for _ in range(count)))
    return statuses


def short_connections(results: Results, stage: Stage) -> None:
    """All are served, and nothing is left of them."""
    backend = free_port()
    port, admin, process = proxies.ours_with_admin(stage, "routes:\n" + proxies.to("s.ns", f"127.0.0.1:{backend}"))
    request = b"GET / HTTP/1.1\r\nhost: p\r\nx-kagent-host: s.ns\r\nconnection: close\r\n\r\n"
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def load() -> tuple[dict[int, int], list[tuple[int, int]]]:
        serving = asyncio.create_task(_quick(backend, ok))
        await _ask_all(port, request, SHORT // 4, AT_ONCE)
        marks = [(descriptors(process.pid), resident(process.pid))]
        total: dict[int, int] = {}
        for _ in range(2):
            for status, count in (await _ask_all(port, request, SHORT // 2, AT_ONCE)).items():
                total[status] = total.get(status, 0) + count
            marks.append((descriptors(process.pid), resident(process.pid)))
        serving.cancel()
        return total, marks

    statuses, marks = asyncio.run(load())
    results.check("short connections are all served", statuses == {200: SHORT}, statuses)
    # Idle connections to the backend stay for a while; those of clients do not.
    gone = until("descriptors", lambda: descriptors(process.pid) < 60)
    results.check("short connections leave no descriptor", gone, (marks, descriptors(process.pid)))
    grown = marks[-1][1] - marks[0][1]
    results.check("short connections leave no memory", grown < 8 * 1024, f"{marks} KiB")
    idle = until("connections", lambda: metric(admin, "kagent_proxy_open_requests") == 0)
    results.check("short connections leave no count", idle, metric(admin, "kagent_proxy_open_requests"))


def waiting_for_a_pod(results: Results, stage: Stage) -> None:
    """Hundreds of agents behind one address wait for a pod that starts; another backend's requests wait beside them."""
    late, other = free_port(), free_port()
    config = "routeDefaults: {hold: {request: 30s}}\nroutes:\n"
    config += proxies.to("late.ns", f"127.0.0.1:{late}") + proxies.to("other.ns", f"127.0.0.1:{other}")
    port, admin, _ = proxies.ours_with_admin(stage, config)
    head = "POST /mcp HTTP/1.1\r\nhost: p\r\nx-kagent-host: {}.ns\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def scene() -> tuple[float, list[dict[int, int]]]:
        calls = [
            asyncio.create_task(_ask_all(port, head.format(name).encode(), count, count))
            for name, count in (("late", WAITING), ("other", 100))
        ]
        # Each has tried once and waits.
        look = asyncio.to_thread(
            until, "all wait", lambda: metric(admin, "kagent_proxy_held_requests") >= WAITING + 100
        )
        await look
        held = metric(admin, "kagent_proxy_held_requests")
        serving = [asyncio.create_task(_quick(each, ok)) for each in (late, other)]
        answers = [await call for call in calls]
        for each in serving:
            each.cancel()
        return held, answers

    held, answers = asyncio.run(scene())
    results.check("agents behind one address wait", held == WAITING + 100, f"{held} wait")
    results.check("agents behind one address are served", answers == [{200: WAITING}, {200: 100}], answers)
    free = until("places", lambda: metric(admin, "kagent_proxy_held_requests") == 0)
    results.check("agents behind one address leave no place", free, metric(admin, "kagent_proxy_held_requests"))


def resets_on_one_connection(results: Results, stage: Stage, backend: Backend) -> None:
    """A gateway that speaks HTTP/2 has all its agents on few connections: hundreds of them that leave at once cost the
    others nothing. Envoy is the gateway."""
    config = "routes:\n" + proxies.to("raw.ns", f"127.0.0.1:{backend.port}")
    port, admin, _ = proxies.ours_with_admin(stage, config)
    gateway = proxies.envoy(stage, port, http2=True)
    connect = lambda: socket.create_connection(("127.0.0.1", gateway), timeout=BOUND)  # noqa: E731
    streams = [open_stream(connect, backend, "/events") for _ in range(STREAMS)]
    for sock, _ in streams:
        checks_until(sock, b"data: 1\n\n")
    opened = metric(admin, "kagent_proxy_open_streams")
    connections = metric(admin, "kagent_proxy_connections")
    (stays, stream), *leave = streams
    for sock, _ in leave:
        sock.close()
    left = until("streams", lambda: metric(admin, "kagent_proxy_open_streams") == 1)
    results.check(
        "streams of a gateway that leave at once", left and opened == STREAMS,
        (opened, connections, metric(admin, "kagent_proxy_open_streams")),
    )
    answer = ask(connect, "GET", "/echo")
    stream.go_on.set()
    rest = checks_until(stays, b"data: 2\n\n")
    results.check("others of the gateway go on", answer.status == 200, (answer.status, rest))
    stays.close()
