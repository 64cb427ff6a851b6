"""How uvicorn reads each request, one line of JSON for each whole message; prints its port first."""

import json
import socket

import uvicorn


async def app(scope, receive, send):
    body = b""
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return  # not whole
        body += event.get("body", b"")
        if not event.get("more_body"):
            break
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
