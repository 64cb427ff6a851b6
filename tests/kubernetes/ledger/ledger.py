"""A server's own book of its calls: around an ASGI application, one line of JSON for each call that it has answered.

A line says which client called, by which method, of which tool or prompt, how the answer reads (`error`: nothing,
`tool_error`, or the code of a JSON-RPC error), and how it was sent (`how`: alone, or posted where the answer goes to
another stream). It reads what the application gets and what it gives, and no header but the session's id. Knows nothing
of a proxy.
"""

import json
import os
import pathlib
import re
import sys

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
import asgi  # noqa: E402

ENDPOINT = re.compile(rb"^data: \S*session_id=(\w+)", re.M)


def write(file: int, **row: str) -> None:
    os.write(file, (json.dumps(row) + "\n").encode())


def error_of(answer: dict) -> str:
    if "error" in answer:
        return str(answer["error"]["code"])
    result = answer.get("result")
    return "tool_error" if isinstance(result, dict) and result.get("isError") else ""


def messages(text: bytes) -> list[dict]:
    """Those of a JSON body, or of whole events."""
    lines = [line.removeprefix(b"data:") for line in text.splitlines() if line.startswith(b"data:")]
    found = []
    for line in lines or [text]:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        found += message if isinstance(message, list) else [message]
    return [message for message in found if isinstance(message, dict)]


class Ledger:
    """The application, with its book at `path`. `client` gives the name of who calls, if a message says it."""

    def __init__(self, app, path: str, client) -> None:
        self.app, self.client = app, client
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self.names: dict[str, str] = {}
        # By session: the calls without an answer.
        self.open: dict[str, dict] = {}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if await asgi.is_healthy(scope, send):
            return None
        exchange = Exchange(self, scope)
        await self.app(scope, await exchange.request(receive), lambda event: exchange.answer(event, send))


class Exchange:
    """One request and its response."""

    def __init__(self, ledger: Ledger, scope: dict) -> None:
        self.ledger, self.scope = ledger, scope
        posted = re.search(rb"session_id=(\w+)", scope["query_string"])
        self.how = "posted" if posted else "alone"
        self.session = posted[1].decode() if posted else dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        self.open = ledger.open.setdefault(self.session, {}) if self.session else {}
        self.told: list[dict] = []
        self.client = ""
        self.rest = b""

    async def request(self, receive):
        body, again = await asgi.whole(self.scope, receive)
        for message in messages(body):
            if "method" in message:
                self.called(message)
        return again

    def called(self, message: dict) -> None:
        names = self.ledger.names
        self.client = self.ledger.client(message) or names.get(self.session, "")
        if self.session:
            names[self.session] = self.client
        method, params = message["method"], message.get("params") or {}
        name = params.get("name", "") if method in ("tools/call", "prompts/get") else ""
        row = {"client": self.client, "method": method, "name": name, "how": self.how}
        if "id" in message:
            self.open[json.dumps(message["id"])] = row
        else:
            self.told.append(row)

    async def answer(self, event: dict, send) -> None:
        if event["type"] == "http.response.start":
            self.begins(event)
        elif self.scope["method"] in ("GET", "POST"):
            self.passes(event.get("body", b""), event.get("more_body", False))
        await send(event)

    def begins(self, event: dict) -> None:
        begun = dict(event["headers"]).get(b"mcp-session-id", b"").decode()
        if begun and not self.session:
            self.ledger.names[begun] = self.client
        for row in self.told:
            write(self.ledger.file, error="" if event["status"] < 300 else str(event["status"]), **row)

    def passes(self, body: bytes, more: bool) -> None:
        if found := ENDPOINT.search(body):
            # Of HTTP+SSE: this stream has the answers of the posts of that session.
            self.open = self.ledger.open.setdefault(found[1].decode(), {})
        text = self.rest + body
        whole, _, self.rest = text.rpartition(b"\r\n\r\n") if more else (text, b"", b"")
        for message in messages(whole) if whole else []:
            if "id" in message and "method" not in message:
                row = self.open.pop(json.dumps(message["id"]), None)
                if row is not None:
                    write(self.ledger.file, error=error_of(message), **row)
