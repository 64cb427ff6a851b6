"""What servers in pods share that look at an ASGI application's requests before it does. Knows no protocol above HTTP."""


async def is_healthy(scope: dict, send) -> bool:
    """Answers the kubelet's question; whether it was that."""
    if scope["path"] != "/healthz":
        return False
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
    return True


async def whole(scope: dict, receive):
    """The body of a POST, and what gives it to the application once more."""
    body, more = b"", scope["method"] == "POST"
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
    first = [{"type": "http.request", "body": body, "more_body": False}] if scope["method"] == "POST" else []

    async def again() -> dict:
        return first.pop() if first else await receive()

    return body, again
