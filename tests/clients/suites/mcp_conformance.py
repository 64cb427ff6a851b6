"""`@modelcontextprotocol/conformance` against a server of the TypeScript SDK, through the default route.

The suite cannot set x-kagent-host. What counts is that each check ends as it ends direct; how many pass is
the server's matter, but most must, or the comparison would say little. 0.1.13 is the last version that runs
on Node 20.
"""

import json
import pathlib
import subprocess

from harness import Results, Stage, free_port, node, run_suite


def conformance(folder: pathlib.Path, url: str, into: pathlib.Path) -> dict[str, str]:
    """Runs every scenario; the status of each check by name, in the order of its scenario."""
    program = folder / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    command = ["node", program, "server", "--suite", "all", "--url", url, "--output-dir", into]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=80)
    seen: dict[str, str] = {}
    for file in sorted(into.rglob("checks.json")):
        scenario = file.parent.name.removeprefix("server-")
        scenario = scenario.split("-20")[0]  # without the time of the run
        for number, check in enumerate(json.loads(file.read_text())):
            seen[f"{scenario} {number} {check['id']}"] = check["status"]
    if not seen:
        raise RuntimeError(f"no results: {(done.stdout + done.stderr)[-2000:]}")
    return seen


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
        seen[name] = conformance(folder, f"{url}/mcp", stage.folder / f"results-{name}")
    results.compare("check", seen["direct"], seen["proxied"])
    passed = sum(status == "SUCCESS" for status in seen["direct"].values())
    results.check("most checks pass direct", passed * 4 >= len(seen["direct"]) * 3, seen["direct"])
    carried = len([line for line in proxy.lines() if line["path"] == "/mcp"])
    results.check("went through", carried >= 50, f"{carried} requests")


run_suite("mcp-conformance", lambda: node("ts"), run)
