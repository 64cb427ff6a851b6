#!/usr/bin/env python3
"""How the real clients react to what kagent-proxy answers for a session that is gone, row by row.

Usage: clients_react.py [CLIENT...]. A scripted server plays one answer to each client of `agents/`, `go/` and `node/`.
The proxy relies on these rows; a new version of an SDK that reacts otherwise is seen here. Prints `ok` and `not ok`
lines and, last, `N passed, N failed`.
"""

import asyncio
import json
import pathlib
import sys
import tempfile

sys.dont_write_bytecode = True

import kinds  # noqa: E402
from clients import Agents, Client, Ledger  # noqa: E402
from processes import Stage, until  # noqa: E402

# One row with one client. TypeScript and Python open a broken GET stream again after a second.
SECONDS = 60
SESSION = "scripted"


class Server:
    """Speaks just enough MCP. `row` decides what the first call, the GET stream and the headers are."""

    def __init__(self, row: str) -> None:
        self.row = row
        self.opens, self.calls, self.gets = 0, 0, 0
        self.without_id = 0  # requests after initialize that did not carry the session's id

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                await self._answer(lines[0].split(" ")[0], fields, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the row is over
        finally:
            writer.close()

    async def _answer(self, method: str, fields: dict, body: bytes, writer: asyncio.StreamWriter) -> None:
        message = json.loads(body) if body else {}
        opens = message.get("method") == "initialize"
        self.opens += opens
        self.without_id += not opens and fields.get("mcp-session-id") != SESSION
        if method == "GET":
            return await self._stream(writer)
        if method == "DELETE":
            return self._send(writer, "204 No Content")
        if "id" not in message:
            return self._send(writer, "202 Accepted")
        if opens:
            result = {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}, "logging": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            }
        elif message["method"] == "tools/list":
            result = {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]}
        else:
            result = {"content": [{"type": "text", "text": "counted"}]}
            self.calls += 1
            if self.calls == 1:
                return self._first_call(writer, message["id"], result)
        self._send_result(writer, message["id"], result, opens)

    def _first_call(self, writer: asyncio.StreamWriter, number: object, result: dict) -> None:
        lost = {"content": [{"type": "text", "text": "lost"}], "isError": True}
        if self.row == "404 empty":
            self._send(writer, "404 Not Found")
        elif self.row == "400 empty":
            self._send(writer, "400 Bad Request")
        elif self.row == "isError in SSE":
            message = json.dumps({"jsonrpc": "2.0", "id": number, "result": lost})
            self._send(writer, "200 OK", f"data: {message}\n\n", "text/event-stream")
        else:
            self._send_result(writer, number, lost if self.row == "isError in JSON" else result, False)

    def _send_result(self, writer: asyncio.StreamWriter, number: object, result: dict, opens: bool) -> None:
        text = json.dumps({"jsonrpc": "2.0", "id": number, "result": result})
        self._send(writer, "200 OK", text, "application/json", opens or self.row != "no id later")

    def _send(
        self, writer: asyncio.StreamWriter, status: str, text: str = "", kind: str = "", named: bool = True
    ) -> None:
        fields = f"content-type: {kind}\r\n" if kind else ""
        fields += f"mcp-session-id: {SESSION}\r\n" if named else ""
        length = "" if status.startswith("204") else f"content-length: {len(text)}\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}{length}\r\n{text}".encode())

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        """The standalone stream; comments until a call came, then a notification; or an end at once."""
        self.gets += 1
        if self.row == "GET refused later" and self.gets > 1:
            return self._send(writer, "404 Not Found")
        named = "" if self.row == "no id later" else f"mcp-session-id: {SESSION}\r\n"
        kind = "content-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\n{kind}{named}\r\n".encode())

        def chunk(text: str) -> None:
            writer.write(f"{len(text):x}\r\n{text}\r\n".encode())

        if (self.row, self.gets) in (("GET ends clean", 1), ("GET ends clean", 2), ("GET refused later", 1)):
            writer.write(b"0\r\n\r\n")
            return
        while self.calls < 2:
            chunk(": keep-alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.1)  # the pace of the comments
        params = {"level": "info", "data": "stream scripted"}
        message = {"jsonrpc": "2.0", "method": "notifications/message", "params": params}
        chunk(f"data: {json.dumps(message)}\n\n")
        while not writer.is_closing():
            chunk(": keep-alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.1)  # the pace of the comments


# What the first call, and one after it, end in.
ROWS = {
    "404 empty": ("error", "result"),
    "400 empty": ("error", "result"),
    "isError in SSE": ("told", "result"),
    "isError in JSON": ("told", "result"),
    "no id later": ("result", "result"),
    "GET held": ("result", "result"),
    "GET ends clean": ("result", "result"),
    "GET refused later": ("result", "result"),
}
# Whose session is over then. Python 1.x is torn down by a 400, so its owner learns of it.
OVER = {
    "404 empty": ("go_161", "go_180"),
    "400 empty": ("go_161", "go_180", "python_1"),
    "GET refused later": ("go_161", "go_180"),
}
# Who begins a session anew behind a 404, and sends the call again by itself: it runs twice if it had run.
AGAIN = ("rmcp",)
# A refused GET stream is asked for this often once more, and then no more.
TRIES = 2
SILENT_SECONDS = 3


async def react(kind: str, row: str) -> str:
    """What is wrong with a client's reaction; nothing if it is as it must be."""
    server = Server(row)
    port = await server.start()
    with tempfile.TemporaryDirectory(prefix="kagent-proxy-react-") as folder:
        stage = Stage(pathlib.Path(folder))
        agents = Agents(stage, kind, kinds.agent(kind, f"http://127.0.0.1:{port}/mcp", "tools.chaos"))
        try:
            await agents.start()
            ledger = Ledger()
            client = Client(agents, f"{kind}-0", ledger, row)
            client.broken = False
            opened, over = await client.connect(), kind in OVER.get(row, ())
            if row == "GET refused later":
                tries = 1 if over else TRIES
                await until(lambda: server.gets == 1 + tries, 15, f"the stream is asked for {tries} times more")
                if over:
                    await until(lambda: ledger.torn, 15, "the session ends")
            seen = opened, *[(await client.call()).outcome for _ in range(2)]
            again = row == "404 empty" and kind in AGAIN
            must = True, *(("error", "error") if over else ("result", "result") if again else ROWS[row])
            if seen != must:
                return f"opened and calls {seen}, must be {must}"
            if (server.opens, server.calls) != ((2, 3) if again else (1, 2)) and not over:
                return f"{server.opens} sessions and {server.calls} calls at the server"
            if over:
                await until(lambda: ledger.torn, 15, "who has the session is told that it is over")
            if row == "GET refused later":
                await asyncio.sleep(SILENT_SECONDS)  # to see that nothing comes
                return "" if server.gets == 1 + tries else f"the stream was asked for {server.gets - 1} times more"
            if row.startswith("GET"):
                await until(lambda: "stream scripted" in client.heard, 15, "the notification is heard")
            return f"{server.without_id} requests without the session's id" if server.without_id else ""
        finally:
            await stage.close()
            server.server.close()


async def main() -> int:
    passed = failed = 0
    for kind in sys.argv[1:] or kinds.AGENTS:
        for row in ROWS:
            try:
                async with asyncio.timeout(SECONDS):
                    wrong = await react(kind, row)
            except Exception as error:  # whatever it was, the row was not seen
                wrong = f"{type(error).__name__}: {error}"
            print(f"not ok {kind}, {row}: {wrong}" if wrong else f"ok {kind}, {row}", flush=True)
            passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(asyncio.run(main()))
