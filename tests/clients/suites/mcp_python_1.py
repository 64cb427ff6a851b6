"""The official Python MCP SDK 1.28 on both sides, streamable HTTP and legacy SSE.

What the proxy has counted is compared with what the server has noted: every call once, by its tool, and the one that has
failed as such; in the legacy transport too, where the answers come on another stream than the calls.
"""

import collections

from harness import HERE, Results, Stage, free_port, python, run_suite

PATHS = {"streamable-http": "/mcp", "sse": "/sse"}


def run(results: Results, stage: Stage, interpreter: str) -> None:
    for transport, path in PATHS.items():
        port, noted = free_port(), stage.folder / f"calls-{transport}"
        server = [interpreter, HERE / "python" / "server_mcp.py", transport, port, noted]
        stage.start(f"server-{transport}", server, port)
        proxy = stage.proxy({"tools.ns": port})
        client = [interpreter, HERE / "python" / "client_mcp.py", transport]
        direct = stage.client(client, f"http://127.0.0.1:{port}{path}", "tools.ns")
        before = noted.read_text().splitlines()
        proxied = stage.client(client, f"{proxy.url}{path}", "tools.ns")
        results.compare(transport, direct, proxied)
        results.through(transport, proxy, "tools.ns", 5)
        at_server = collections.Counter(noted.read_text().splitlines()[len(before) :])
        counted = proxy.calls("tools.ns")
        by_tool: collections.Counter = collections.Counter()
        for (method, tool, _), count in counted.items():
            by_tool[tool] += count if method == "tools/call" else 0
        del by_tool[""]
        results.check(f"{transport} calls counted once", at_server == by_tool and bool(by_tool), (at_server, counted))
        failed = {key: count for key, count in counted.items() if key[2]}
        results.check(f"{transport} failures", failed == {("tools/call", "add", "tool_error"): 1}, counted)
        begun = counted.get(("initialize", "", "")), counted.get(("tools/list", "", ""))
        results.check(f"{transport} other methods", begun == (1, 1), counted)


run_suite("mcp-python-1", lambda: python("mcp-1"), run)
