"""What a kagent agent needs around it: `stub_kagent.py PORT [SCRIPT]`. A model and the controller's store.

The model is OpenAI's chat completions with a script, a list of tool, arguments, and a file that it waits for if there
is one: each tool that is offered is called once, in order, and the last answer quotes every tool's result; without
tools it quotes the user. SCRIPT is such a list as JSON; `$user` in its strings is what the user said. The store is the
session and task part of the controller's API, in memory. Knows nothing of a proxy.
"""

import http.server
import json
import os
import re
import sys
import threading
import time

SCRIPT = [
    ("add", {"a": 2, "b": 3}),
    ("size", {"text": "over legacy sse"}),
    ("ml__NS__helper", {"request": "ping from the parent"}),
]
if sys.argv[2:]:
    SCRIPT = json.loads(sys.argv[2])
SESSIONS: dict[str, dict] = {}
EVENTS: dict[str, list] = {}
TASKS: dict[str, dict] = {}
LOCK = threading.Lock()


def text_of(message: dict) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def wait(gate: str) -> None:
    """Until there is this file; another one says that the model waits."""
    with open(f"{gate}-waits", "w"):
        pass
    while not os.path.exists(gate):
        time.sleep(0.01)  # between two looks at the gate


def complete(request: dict) -> dict:
    """The model's next message."""
    users = [text_of(message) for message in request["messages"] if message["role"] == "user"]
    offered = {tool["function"]["name"] for tool in request.get("tools") or []}
    results = [text_of(message) for message in request["messages"] if message["role"] == "tool"]
    steps = [step for step in SCRIPT if step[0] in offered]
    message: dict = {"role": "assistant", "content": None}
    reason = "stop"
    if len(results) < len(steps):
        name, arguments, *gate = steps[len(results)]
        if gate:
            wait(gate[0].replace("$user", users[-1]))
        function = {"name": name, "arguments": json.dumps(arguments).replace("$user", users[-1])}
        message["tool_calls"] = [{"id": f"call-{len(results)}", "type": "function", "function": function}]
        reason = "tool_calls"
    elif results:
        message["content"] = "results: " + " | ".join(results)
    else:
        message["content"] = f"heard: {users[-1]}"
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "stub", "choices": [choice], "usage": usage
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def data(self, value: object) -> None:
        self.answer(200, {"error": False, "data": value, "message": ""})

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        with LOCK:
            if match := re.fullmatch(r"/api/sessions/([^/]+)", path):
                session = SESSIONS.get(match[1])
                if session:
                    return self.data({"session": session, "events": EVENTS[match[1]]})
            elif match := re.fullmatch(r"/api/tasks/([^/]+)", path):
                if match[1] in TASKS:
                    return self.data(TASKS[match[1]])
        self.answer(404, {"error": True, "message": "not found"})

    def do_POST(self) -> None:
        path = self.path.split("?")[0]
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if path == "/v1/chat/completions":
            return self.answer(200, complete(body))
        with LOCK:
            if path == "/api/sessions":
                name = body.get("id") or f"session-{len(SESSIONS)}"
                SESSIONS[name] = {"id": name, "user_id": body["user_id"]}
                EVENTS[name] = []
                return self.data(SESSIONS[name])
            if match := re.fullmatch(r"/api/sessions/([^/]+)/events", path):
                EVENTS.setdefault(match[1], []).append(body)
                return self.data(body)
            if path == "/api/tasks":
                TASKS[body["id"]] = body
                return self.data(body)
        self.answer(404, {"error": True, "message": "not found"})

    def log_message(self, *_: object) -> None:
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
