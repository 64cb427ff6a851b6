"""A server's own book of its calls: around an ASGI application, one line of JSON for each call that it has answered.

A line says which client called, by which method, of which tool or prompt, how that ended (`error`: nothing,
`tool_error`, the code of a JSON-RPC error, `client_gone` where the client left before, `upstream_broke` where the
server broke off, or the status of a response that is no answer), and how it was sent (`how`: alone, or posted where
the answer goes to another stream). It reads what the application gets and what it gives, and no header but the
session's id. Where requests are no messages of JSON-RPC, the application says what they are. Knows nothing of a proxy.
"""

import contextvars
import json
import os
import pathlib
import re
import sys

# Last: some files there have names of others.
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
import asgi  # noqa: E402

ENDPOINT = re.compile(rb"^data: \S*session_id=(\w+)", re.M)
# Methods of A2A whose answer is a stream of results, which ends with it, or with an error.
STREAMS = ("SendStreamingMessage", "SubscribeToTask", "message/stream", "tasks/resubscribe")
# What a request or a call of gRPC is noted by, while it is answered.
CURRENT: contextvars.ContextVar = contextvars.ContextVar("current")


def operation(method: str, client: str) -> None:
    """What is answered just now is this operation, for that client."""
    CURRENT.get().operation(method, client)


def opened(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)


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
        self.file = opened(path)
        self.names: dict[str, str] = {}
        # By session: the calls without an answer.
        self.open: dict[str, dict] = {}

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if await asgi.is_healthy(scope, send):
            return None
        exchange = Exchange(self, scope)
        CURRENT.set(exchange)
        try:
            await self.app(scope, await exchange.request(receive), lambda event: exchange.answer(event, send))
        except Exception:
            exchange.broke = not exchange.whole and not exchange.left
            raise
        finally:
            exchange.end()


class Exchange:
    """One request and its response."""

    def __init__(self, ledger: Ledger, scope: dict) -> None:
        self.ledger, self.scope = ledger, scope
        posted = re.search(rb"session_id=(\w+)", scope["query_string"])
        self.how = "posted" if posted else "alone"
        self.session = posted[1].decode() if posted else dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        self.open = ledger.open.setdefault(self.session, {}) if self.session else {}
        self.told: list[dict] = []
        # Calls whose answer is this response.
        self.own: dict[str, dict] = {}
        # Those of them with a result of several.
        self.begun: dict[str, dict] = {}
        self.client, self.status = "", 0
        self.rest = b""
        self.whole = self.left = self.broke = False

    async def request(self, receive):
        body, again = await asgi.whole(self.scope, receive)
        for message in messages(body):
            if "method" in message:
                self.called(message)

        async def heard() -> dict:
            event = await again()
            self.left |= event["type"] == "http.disconnect" and not self.whole
            return event

        return heard

    def operation(self, method: str, client: str) -> None:
        """The request is this call, and is no message."""
        self.own[""] = {"client": client, "method": method, "name": "", "how": self.how}

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
            if self.how == "alone":
                self.own[json.dumps(message["id"])] = row
        else:
            self.told.append(row)

    async def answer(self, event: dict, send) -> None:
        if event["type"] == "http.response.start":
            self.begins(event)
        elif self.scope["method"] in ("GET", "POST"):
            self.passes(event.get("body", b""), event.get("more_body", False))
        # What comes after the client has left goes nowhere.
        self.whole |= event["type"] == "http.response.body" and not event.get("more_body", False) and not self.left
        await send(event)

    def end(self) -> None:
        """Calls without an answer have ended with the response."""
        for key, row in self.own.items():
            if self.open.pop(key, None) is not None or key == "":
                status = "" if self.status < 300 else str(self.status)
                write(self.ledger.file, error=self.unanswered(key, status), **row)

    def unanswered(self, key: str, status: str) -> str:
        if self.broke:
            return "upstream_broke"
        if key in self.begun:
            return ""
        if not self.whole:
            return "client_gone"
        # Of what is no message the response is the answer.
        return status or ("unanswered" if key else "")

    def begins(self, event: dict) -> None:
        self.status = event["status"]
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
                self.answered(json.dumps(message["id"]), error_of(message))

    def answered(self, key: str, error: str) -> None:
        row = self.open.pop(key, None)
        if row is None:
            return
        if row["method"] in STREAMS and not error:
            self.open[key] = self.begun[key] = row
        else:
            write(self.ledger.file, error=error, **row)
