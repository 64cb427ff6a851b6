"""Runs `@modelcontextprotocol/conformance`, and reads what it has found."""

import json
import os
import pathlib
import re
import subprocess

from harness import Proxy


def conformance(command: list, into: pathlib.Path, env: dict | None = None) -> dict[str, str]:
    """Runs `command`; the status of each check by name, in the order of its scenario."""
    full = [str(part) for part in [*command, "--output-dir", into]]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(full, capture_output=True, text=True, timeout=80, env=environment)
    seen: dict[str, str] = {}
    for file in sorted(into.rglob("checks.json")):
        without_time = re.sub(r"-\d{4}-\d\d-\d\dT.*", "", file.parent.name)
        scenario = without_time.removeprefix("server-")
        # What is only told is no check: the suite's log of requests, whose order is by chance.
        checks = [check for check in json.loads(file.read_text()) if check["status"] != "INFO"]
        for number, check in enumerate(checks):
            seen[f"{scenario} {number} {check['id']}"] = check["status"]
    if not seen:
        raise RuntimeError(f"no results: {(done.stdout + done.stderr)[-2000:]}")
    return seen


def carried(proxy: Proxy) -> int:
    """Requests that the proxy has carried."""
    return len([line for line in proxy.lines() if line["path"] == "/mcp"])
