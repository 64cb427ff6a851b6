"""`@modelcontextprotocol/conformance` against a server of the TypeScript SDK, through the default route.

The suite cannot set x-kagent-host. What counts is that each check ends as it ends direct; how many pass is
the server's matter, but most must, or the comparison would say little. 0.1.13 is the last version that runs
on Node 20; `mcp_conformance_2026.py` runs a newer one.
"""

import pathlib

from conformance import carried, conformance
from harness import Results, Stage, free_port, node, run_suite

PROGRAM = "node_modules/@modelcontextprotocol/conformance/dist/index.js"


def run(results: Results, stage: Stage, folder: pathlib.Path) -> None:
    seen = {}
    for name in ("direct", "proxied"):
        port = free_port()
        proxy = stage.proxy({}, default=port)
        # The server is told where browsers may come from. Only this refuses a rebound name behind a default
        # route for every Host: the server sees its own Host there (D1).
        through = proxy.url.replace("127.0.0.1", "localhost")
        stage.start(f"server-{name}", ["node", folder / "server.mjs", port, through], port)
        url = f"http://localhost:{port}" if name == "direct" else through
        command = ["node", folder / PROGRAM, "server", "--suite", "all", "--url", f"{url}/mcp"]
        seen[name] = conformance(command, stage.folder / f"results-{name}")
    results.compare("check", seen["direct"], seen["proxied"])
    passed = sum(status == "SUCCESS" for status in seen["direct"].values())
    results.check("most checks pass direct", passed * 4 >= len(seen["direct"]) * 3, seen["direct"])
    results.check("went through", carried(proxy) >= 50, f"{carried(proxy)} requests")


run_suite("mcp-conformance", lambda: node("ts"), run)
