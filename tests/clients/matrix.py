"""The table of SDKs in `docs/compatibility.md`: what was measured, beside the versions that are pinned.

Knows which run of which suite belongs to which SDK, and nothing of how it is made. `tests/it/docs.rs` compares the
versions with the pins.
"""

import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "compatibility.md"
BEGIN, END = "<!-- measured by tests/clients/run.py --matrix -->\n", "<!-- end -->\n"

# What people call it, its package, where that is pinned, the suite and the beginning of its runs.
ROWS = [
    ("Python, Streamable HTTP", "mcp", "python/requirements-mcp-1.txt", "mcp-python-1", "streamable-http"),
    ("Python, HTTP+SSE", "mcp", "python/requirements-mcp-1.txt", "mcp-python-1", "sse"),
    ("Python, automatic", "mcp", "python/requirements-mcp-2.txt", "mcp-python-2", "streamable-http auto"),
    ("Python, `initialize`", "mcp", "python/requirements-mcp-2.txt", "mcp-python-2", "streamable-http legacy"),
    ("Python, HTTP+SSE", "mcp", "python/requirements-mcp-2.txt", "mcp-python-2", "sse legacy"),
    ("TypeScript, Streamable HTTP", "@modelcontextprotocol/sdk", "ts/package.json", "mcp-typescript", "streamable"),
    ("TypeScript, HTTP+SSE", "@modelcontextprotocol/sdk", "ts/package.json", "mcp-typescript", "sse"),
    ("TypeScript, automatic", "@modelcontextprotocol/client", "ts2/package.json", "mcp-eras", "typescript-2 auto"),
    ("TypeScript, `initialize`", "@modelcontextprotocol/client", "ts2/package.json", "mcp-eras", "typescript-2 legacy"),
    ("Go, Streamable HTTP", "github.com/modelcontextprotocol/go-sdk", "go/go.mod", "go", "mcp"),
    ("Go, HTTP+SSE", "github.com/modelcontextprotocol/go-sdk", "go/go.mod", "go", "sse"),
    ("Go, automatic", "github.com/modelcontextprotocol/go-sdk", "go_eras/go.mod", "mcp-eras", "go-1.8 auto"),
    ("Go, `initialize`", "github.com/modelcontextprotocol/go-sdk", "go_eras/go.mod", "mcp-eras", "go-1.8 legacy"),
    ("Rust, Streamable HTTP", "rmcp", "rust/Cargo.toml", "mcp-rust", "streamable"),
    ("Rust, automatic", "rmcp", "rust/Cargo.toml", "mcp-eras", "rmcp-3 auto"),
    ("Rust, `initialize`", "rmcp", "rust/Cargo.toml", "mcp-eras", "rmcp-3 legacy"),
    ("kagent's runtime, a turn", "kagent-adk", "python/requirements-adk.txt", "kagent-adk", "turn"),
    ("A2A Python, 0.3", "a2a-sdk", "python/requirements-a2a-0.txt", "a2a-python", "sdk-0"),
    *(
        (f"A2A Python, {title}, {binding}", "a2a-sdk", f"python/requirements-{pin}.txt", suite, f"{run} {version}")
        for title, version in [("1.0", "1.0"), ("0.3 by 1.x", "0.3")]
        for binding, pin, suite, run in [
            ("JSON-RPC", "a2a-1", "a2a-python", "sdk-1 JSONRPC"),
            ("HTTP+JSON", "a2a-1", "a2a-python", "sdk-1 HTTP+JSON"),
            ("gRPC", "a2a-grpc", "grpc-python", "a2a"),
        ]
    ),
    ("A2A Go, 0.3", "github.com/a2aproject/a2a-go", "go/go.mod", "go", "a2a"),
    ("A2A Go, 0.3, gRPC", "github.com/a2aproject/a2a-go", "go/go.mod", "go", "a2a-grpc"),
    *(
        (f"A2A Go, 1.0, {binding}", "github.com/a2aproject/a2a-go/v2", "go_a2a/go.mod", "go-a2a", run)
        for binding, run in [("JSON-RPC", "jsonrpc"), ("HTTP+JSON", "rest"), ("gRPC", "grpc")]
    ),
    ("gRPC Python", "grpcio", "python/requirements-a2a-grpc.txt", "grpc-python", "bytes"),
    ("gRPC Go, by A2A 0.3", "google.golang.org/grpc", "go/go.mod", "go", "a2a-grpc"),
    ("gRPC Go, by A2A 1.0", "google.golang.org/grpc", "go_a2a/go.mod", "go-a2a", "grpc"),
    *(
        (f"Conformance, {what}", "@modelcontextprotocol/conformance", pin, suite, run)
        for what, pin, suite, run in [
            ("server of TypeScript 2.x, 2026-07-28", "ts2/package.json", "mcp-conformance-2026", "2026-07-28 ts2"),
            ("server of TypeScript 2.x, 2025-11-25", "ts2/package.json", "mcp-conformance-2026", "2025-11-25 ts2"),
            ("server of TypeScript 1.x, 2025-11-25", "ts2/package.json", "mcp-conformance-2026", "2025-11-25 ts"),
            ("client of TypeScript 2.x, both", "ts2/package.json", "mcp-conformance-2026", "client "),
            ("server of TypeScript 1.x, all", "ts/package.json", "mcp-conformance", "check"),
        ]
    ),
]


def version(package: str, pin: str) -> str:
    """The version that a file pins a package to."""
    text, name = (HERE / pin).read_text(), re.escape(package)
    forms = [rf"^{name}==(\S+)$", rf'"{name}": "([^"]+)"', rf"{name} v(\S+)", rf'^{name} = \{{ version = "=([^"]+)"']
    for form in forms:
        if found := re.search(form, text, re.MULTILINE):
            return found[1]
    raise RuntimeError(f"{pin} does not pin {package}")


def row(entry: tuple, lines: list[dict]) -> str:
    title, package, pin, suite, run = entry
    exact = [line for line in lines if line["suite"] == suite and line["run"] == run]
    ours = exact or [line for line in lines if line["suite"] == suite and line["run"].startswith(run)]
    direct, proxied = (sum(line[way] for line in ours) for way in ("direct", "proxied"))
    spoken = {line["protocol"] for line in ours} - {None, "sse"}
    protocol = ", ".join(sorted(spoken)) or "–"
    if not ours:
        raise RuntimeError(f"{suite} {run} was not measured")
    return f"| {title} | `{package}` | {version(package, pin)} | {protocol} | {direct} | {proxied} |"


def table(measured: pathlib.Path) -> str:
    lines = [json.loads(line) for line in measured.read_text().splitlines()]
    head = "| | package | version | protocol | direct | the same through the proxy |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(row(entry, lines) for entry in ROWS) + "\n"


def split() -> tuple[str, str, str]:
    """The page before its table, the table, and the rest."""
    before, rest = PAGE.read_text().split(BEGIN)
    shown, after = rest.split(END)
    return before, shown, after


def write(measured: pathlib.Path) -> None:
    """Puts the table into the page."""
    before, _, after = split()
    PAGE.write_text(before + BEGIN + table(measured) + END + after)


def verdict(measured: pathlib.Path) -> str:
    """Whether the page shows what was measured, as a line of a suite."""
    try:
        seen = table(measured).splitlines()
    except RuntimeError as fault:  # a suite that failed said why
        return f"not ok the table of SDKs: {fault}"
    shown = split()[1].splitlines()
    differs = [f"{new!r} is shown as {old!r}" for new, old in zip(seen, shown, strict=False) if new != old]
    if differs or len(seen) != len(shown):
        return f"not ok the table of SDKs: run with --matrix: {differs or 'rows are missing'}"
    return "ok the table of SDKs shows what was measured"
