"""How backends end their responses, read directly and through the proxy: both must be the same message.

Lengths, chunks, ends of connections, trailers, interim responses, responses without a body and some that are cut off.
Not for running by itself; knows no backend but by the kinds of responses that it gives.
"""

import re
import socket

BOUND = 10
# Kind: status, body, trailers, and whether it has its end.
KINDS = {
    "length": (200, b"hello", [], True),
    "empty": (200, b"", [], True),
    "chunked": (200, b"hello", [], True),
    "not-found": (404, b"hello", [], True),
    "no-content": (204, b"", [], True),
    "not-modified": (304, b"", [], True),
    "closing": (200, b"hello", [], True),
    "until-close": (200, b"hello", [], True),
    "trailers": (200, b"hello", [("x-sum", "7")], True),
    "hints": (200, b"hello", [], True),
    "large": (200, b"0123456789abcdef" * 20000, [], True),
    "cut-length": (200, b"hel", [], False),
    "cut-chunked": (200, b"hel", [], False),
}
# uvicorn always frames, and knows neither trailers nor interim responses; hyper's server frames too.
LACKS = {"uvicorn": {"until-close", "trailers", "hints"}, "node": set(), "hyper": {"until-close", "hints"}}
# What concerns one connection, or the moment, and what the proxy adds.
DATE = re.compile(rb"(?i)(\r\ndate:) [^\r]+")
OWN = {"connection", "keep-alive", "transfer-encoding", "date", "via"}


class Reader:
    """Reads a connection; a reset is an end too."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection, self.data, self.ended, self.all = connection, b"", False, b""

    def more(self) -> bool:
        try:
            part = self.connection.recv(65536)
        except ConnectionError:
            part = b""
        self.data += part
        self.all += part
        self.ended = not part
        return bool(part)

    def exactly(self, length: int) -> bytes:
        while len(self.data) < length and self.more():
            pass
        taken, self.data = self.data[:length], self.data[length:]
        return taken

    def line(self) -> bytes:
        while b"\n" not in self.data and self.more():
            pass
        line, end, rest = self.data.partition(b"\n")
        assert not end or line.endswith(b"\r"), f"a bare LF behind {line}"
        self.data = rest
        return line[:-1] if end else b""

    def fields(self) -> list:
        fields = []
        while line := self.line():
            name, _, value = line.decode("latin-1").partition(":")
            fields.append((name.lower(), value.strip()))
        return fields

    def taken(self) -> bytes:
        """What has been read, without what came behind it."""
        return self.all[:len(self.all) - len(self.data)]

    def rest(self) -> bytes:
        while self.more():
            pass
        return self.exactly(len(self.data))


def values(fields: list, name: str) -> str:
    return ", ".join(value.lower() for found, value in fields if found == name)


def response(reader: Reader, method: str) -> dict:
    """The next one, with the interim ones before it; `whole` is that it has its end."""
    interim = []
    while True:
        version, _, line = reader.line().partition(b" ")
        status, _, reason = line.partition(b" ")
        fields = reader.fields()
        if not status.startswith(b"1"):
            break
        interim.append(int(status))
    kept = "close" not in values(fields, "connection") and version == b"HTTP/1.1"
    body, trailers, whole = b"", [], True
    if method == "HEAD" or status in (b"204", b"304"):
        pass
    elif values(fields, "transfer-encoding") == "chunked":
        while size := int(reader.line().partition(b";")[0] or b"0", 16):
            body += reader.exactly(size)
            reader.line()
        trailers = reader.fields()
        whole = not reader.ended
    elif length := values(fields, "content-length"):
        body = reader.exactly(int(length))
        whole = len(body) == int(length)
    else:
        body, kept = reader.rest(), False
    seen = [field for field in fields if field[0] not in OWN]
    return {"interim": interim, "status": int(status or 0), "reason": reason, "fields": sorted(seen), "body": body,
            "trailers": trailers, "whole": whole, "kept": kept and whole}


HEAD = "{} {} HTTP/1.1\r\nHost: p\r\nx-kagent-host: s.ns\r\nTE: trailers\r\nConnection: TE{}\r\n\r\n"


def ask(address: tuple, method: str, kind: str) -> tuple[dict, dict | None]:
    """The response, and the one to a marker behind it, where the connection is kept."""
    with socket.create_connection(address, timeout=BOUND) as client:
        reader = Reader(client)
        client.sendall(HEAD.format(method, f"/respond/{kind}", "").encode())
        first = response(reader, method)
        if not first["kept"]:
            return first, None
        client.sendall(HEAD.format("GET", "/marker", ", close").encode())
        second = response(reader, "GET")
        assert reader.rest() == b"", "bytes behind the last response"
        return first, second


def asked(backend: str) -> list[tuple]:
    """What this backend is asked for: kind and method, and what is wanted."""
    return [(kind, method, wanted) for kind, wanted in KINDS.items() if kind not in LACKS[backend]
            for method in (["GET", "HEAD"] if wanted[3] else ["GET"])]


def record(backend: str, direct: tuple) -> list[dict]:
    """The bytes of its responses, but for those of the large one and the time of day."""
    records = []
    for kind, method, _ in asked(backend):
        if kind == "large":
            continue
        with socket.create_connection(direct, timeout=BOUND) as client:
            reader = Reader(client)
            client.sendall(HEAD.format(method, f"/respond/{kind}", "").encode())
            kept = response(reader, method)["kept"]
            answer = DATE.sub(rb"\1 Sat, 28 Nov 2026 12:00:00 GMT", reader.taken()).decode("latin-1")
            records.append({"backend": backend, "kind": kind, "method": method, "closes": not kept, "bytes": answer})
    return records


def compare(backend: str, direct: tuple, through: tuple) -> int:
    """Prints a line for each response; returns how many were not the same."""
    failed = 0
    for kind, method, (status, body, trailers, whole) in asked(backend):
        theirs, theirs_next = ask(direct, method, kind)
        ours, ours_next = ask(through, method, kind)
        wanted = (status, b"" if method == "HEAD" else body, [] if method == "HEAD" else trailers, whole)
        got = tuple(theirs[name] for name in ["status", "body", "trailers", "whole"])
        names = ["status", "reason", "fields", "body", "trailers", "whole"]
        faults = [f"differs in {name}" for name in names if ours[name] != theirs[name]]
        if got != wanted:
            faults.append("the backend does not say what it should")
        # The proxy reads interim responses over.
        if ours["interim"] or bool(theirs["interim"]) != (kind == "hints"):
            faults.append("interim responses")
        if theirs_next and (not ours_next or ours_next["body"] != b"{}"):
            faults.append("the marker behind it has no response")
        print("not ok" if faults else "ok", f"{backend}: {method} {kind}", *faults)
        if faults:
            print("  direct", str(theirs)[:400], "\n  through", str(ours)[:400])
        failed += bool(faults)
    return failed
