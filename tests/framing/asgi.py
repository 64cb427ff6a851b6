"""How uvicorn reads each request, one line of JSON for each whole message, and how it ends responses: those below
`/respond/` are what the path names. Prints its port first.
"""

import json
import socket

import uvicorn

STATUS = {"not-found": 404, "no-content": 204, "not-modified": 304}


async def respond(kind, send):
    headers = [(b"x-kind", kind.encode()), (b"x-twice", b"1"), (b"x-twice", b"2")]
    if kind in ("length", "not-found", "closing", "cut-length"):
        headers.append((b"content-length", b"5"))
    elif kind == "empty":
        headers.append((b"content-length", b"0"))
    if kind == "closing":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": STATUS.get(kind, 200), "headers": headers})
    if kind == "large":
        for _ in range(20):
            await send({"type": "http.response.body", "body": b"0123456789abcdef" * 1000, "more_body": True})
    elif kind not in ("empty", "no-content", "not-modified"):
        await send({"type": "http.response.body", "body": b"hel", "more_body": True})
        if kind.startswith("cut-"):
            return  # uvicorn closes what has no end
        await send({"type": "http.response.body", "body": b"lo", "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def app(scope, receive, send):
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return  # not whole
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
    if scope["path"].startswith("/respond/"):
        return await respond(scope["path"].removeprefix("/respond/"), send)
    headers = {}
    for name, value in ((n.decode(), v.decode()) for n, v in scope["headers"]):
        if name.startswith("x-test-"):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    path = (scope["raw_path"] + query).decode()
    seen = {"method": scope["method"], "path": path, "headers": headers, "body": body.decode()}
    print(json.dumps(seen), flush=True)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(app, http="h11", lifespan="off", log_level="critical")
uvicorn.Server(config).run(sockets=[listener])
