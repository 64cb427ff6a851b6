#!/usr/bin/env python3
"""`top` and `tap` in a real terminal: tmux has the screen, this script the keys.

Usage: run.py PATH_OF_KAGENT_PROXY [--panics PATH_OF_EXAMPLE] [--admin URL [--demo]]. Without --admin the admin
listener is a stand-in of `admin.py`, which the tests change as they go; with it only what any proxy shows is looked at,
and a call or two should pass meanwhile. With --demo it is that of `kagent-proxy demo`, whose faults are looked for.
Prints `ok NAME` or `not ok NAME` for each test. Needs tmux 3.2 or later.
"""

import argparse
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import admin

PATIENCE = 20
# What is left of the terminal, said by the shell that started the program.
AFTER = 'echo "status $?"; stty -a >"$0"; exec cat'


class Terminal:
    """A program in a tmux of its own, in a window of this size."""

    def __init__(self, *command: str, width: int = 110, height: int = 20, env: dict | None = None) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.socket = f"{self.folder.name}/tmux"
        self.stty = pathlib.Path(self.folder.name, "stty")
        line = f"trap : INT; {shlex.join(command)}; {AFTER}"
        words = ["env", *(f"{k}={v}" for k, v in (env or {}).items()), "sh", "-c", line, str(self.stty)]
        self.tmux("new-session", "-d", "-x", str(width), "-y", str(height), shlex.join(words))

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], capture_output=True, timeout=PATIENCE)
        self.folder.cleanup()

    def tmux(self, *words: str) -> str:
        command = ["tmux", "-f", "/dev/null", "-S", self.socket, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def keys(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J")

    def ask(self, what: str) -> str:
        return self.tmux("display-message", "-p", f"#{{{what}}}").strip()

    def until(self, *parts: str, gone: tuple[str, ...] = (), order: str = "", seconds: float = PATIENCE) -> str:
        """The screen, as soon as it has these texts and not those, and lines in this order."""
        until = time.monotonic() + seconds
        while True:
            screen = self.screen()
            # Words are broken where a line ends.
            flat = " ".join(screen.split())
            if (all(p in screen or p in flat for p in parts) and not any(p in screen for p in gone)
                    and re.search(order, screen, re.DOTALL)):
                return screen
            assert time.monotonic() < until, f"no {parts} without {gone} in order {order!r}:\n{screen}"
            time.sleep(0.02)  # between two looks at the condition

    def program(self) -> int:
        """The process of the program, a child of the shell."""
        shell = self.ask("pane_pid")
        return int(pathlib.Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

    def given_back(self, status: int) -> str:
        """The screen after the program has ended, with the terminal as it was before."""
        screen = self.until(f"status {status}")
        wait(lambda: self.stty.exists() and "echo" in self.stty.read_text(), "stty says nothing")
        modes = self.stty.read_text().replace(";", " ").split()
        for mode in ["icanon", "echo", "isig", "opost", "icrnl"]:
            assert mode in modes, f"{mode} is off: {' '.join(modes)}"
        assert (self.ask("alternate_on"), self.ask("cursor_flag")) == ("0", "1"), screen
        return screen


class Tap(subprocess.Popen):
    """Ends with its block, also where a test fails in it."""

    def __exit__(self, *why: object) -> None:
        self.kill()
        super().__exit__(*why)


def wait(condition, what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)  # between two looks at the condition


class World:
    def __init__(self, program: str, panics: str | None, url: str | None) -> None:
        self.binary, self.panics = os.path.abspath(program), panics and os.path.abspath(panics)
        self.admin = None if url else admin.Admin()
        self.url = url or self.admin.url

    def top(self, *flags: str, **more: object) -> Terminal:
        return Terminal(self.binary, "top", "--admin", self.url, *flags, **more)

    def tap(self, *flags: str, **more: object) -> Tap:
        command = [self.binary, "tap", "--admin", self.url, *flags]
        before = len(self.admin.readers) if self.admin else 0
        tap = Tap(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
        if self.admin:
            wait(lambda: len(self.admin.readers) > before or tap.poll() is not None, "tap does not ask")
        return tap

    def run(self, *words: str, **more: object) -> subprocess.CompletedProcess:
        return subprocess.run([self.binary, *words], capture_output=True, text=True, timeout=PATIENCE, **more)


# --- with the stand-in -------------------------------------------------------------------------------------------


def live(world: World) -> None:
    """top shows edges, the busiest first, and follows what changes"""
    with world.top() as terminal:
        screen = terminal.until("live", "1 edges 4", "idle.team-b", order="helper.*unknown.*idle")
        assert "calls 123  errors 4  rate 2.50/s" in screen, screen
        world.admin.show(lambda sight: sight["edges"][2].update(rate=900.0, state="failing"))
        terminal.until("failing", "900", order="unknown.*helper")
        world.admin.show(lambda sight: sight["edges"][2].update(rate=1.0, state="undeclared"))
        terminal.until("undeclared", order="helper.*unknown")


def keys(world: World) -> None:
    """top sorts by any column, filters as one types, turns tabs, helps"""
    with world.top() as terminal:
        terminal.until("RATE▼")
        terminal.keys(*["Left"] * 6)
        terminal.until("FROM▲", order="parent.*unknown")
        terminal.keys("r")
        terminal.until("FROM▼", order="unknown.*parent")
        terminal.keys("/")
        terminal.type("q slow")
        terminal.until("nothing has")
        terminal.keys(*["BSpace"] * 6)
        terminal.type("slow")
        terminal.until("helper.team-a", "/slow", gone=("idle.team-b", "unknown"))
        terminal.keys("Enter")
        terminal.until('filter "slow"')
        terminal.keys("Escape")
        terminal.until("idle.team-b")
        terminal.keys("Tab")
        terminal.until("TOOL", "divide", "tools/call", gone=("idle.team-b",))
        terminal.keys("3")
        terminal.until("00000a1b", "1m15s")
        terminal.keys("BTab", "BTab", "BTab")
        terminal.until("ANSWERED LOST")
        terminal.keys("?")
        terminal.until("Ctrl-C", "Esc closes")
        terminal.keys("q")
        terminal.until("ANSWERED LOST", gone=("Esc closes",))
        terminal.keys("q")
        terminal.given_back(0)


def opened(world: World) -> None:
    """top opens an edge with its tools and streams, and goes back"""
    with world.top() as terminal:
        terminal.until("idle.team-b")
        terminal.keys("Enter")
        screen = terminal.until("team-a/parent → tools.team-a (mcp)", "tools 2", "streams 1", "divide", "00000a1b")
        assert "message/send" not in screen, screen
        terminal.keys("Escape")
        terminal.until("idle.team-b")
        terminal.keys("Down", "Enter")
        terminal.until("team-a/parent → helper.team-a (a2a)", "message/send", "no stream is open")


def sizes(world: World) -> None:
    """top follows the size of its window, and survives a tiny one"""
    with world.top() as terminal:
        terminal.until("idle.team-b")
        terminal.tmux("resize-window", "-x", "58", "-y", "12")
        terminal.until("team-a/pare…", gone=("STREAMS",))
        terminal.tmux("resize-window", "-x", "5", "-y", "2")
        wait(lambda: "kagen" in terminal.screen(), "nothing is drawn")
        terminal.tmux("resize-window", "-x", "120", "-y", "20")
        terminal.until("team-a/parent", "STREAMS")
        terminal.keys("q")
        terminal.given_back(0)


def away(world: World) -> None:
    """top says that the API is away, keeps what it saw, and is live again by itself"""
    with world.top() as terminal:
        terminal.until("live", "idle.team-b")
        world.admin.stop()
        terminal.until("away", "Connection refused", "asking again", "idle.team-b")
        terminal.keys("Tab")
        terminal.until("divide")
        world.admin.start()
        terminal.until("live", "divide", gone=("Connection refused",))
    world.admin.stop()
    with world.top() as terminal:
        terminal.until("away", "kubectl port-forward", "nothing has been heard yet")
        world.admin.start()
        terminal.until("live", "idle.team-b")


def ends(world: World) -> None:
    """top gives the terminal back after Ctrl-C, a signal, a refusal and a panic, and ends with its terminal"""
    with world.top() as terminal:
        terminal.until("idle.team-b")
        assert (terminal.ask("alternate_on"), terminal.ask("cursor_flag")) == ("1", "0")
        terminal.keys("C-c")
        terminal.given_back(0)
    with world.top() as terminal:
        terminal.until("idle.team-b")
        os.kill(terminal.program(), signal.SIGTERM)
        terminal.given_back(0)
    with Terminal(world.binary, "top", "--admin", "ftp://x") as terminal:
        assert "such as http://127.0.0.1:9091" in terminal.given_back(1)
    # Not an admin listener that has it.
    answers = world.admin.answer
    world.admin.answer = lambda request: world.admin.whole(request, 404, "no such thing\n")
    try:
        with world.top() as terminal:
            assert "an older kagent-proxy" in terminal.given_back(1)
    finally:
        world.admin.answer = answers
    with world.top() as terminal:
        terminal.until("idle.team-b")
        program = terminal.program()
        terminal.tmux("kill-server")
        wait(lambda: not pathlib.Path(f"/proc/{program}").exists(), "it outlives its terminal")
    if world.panics:
        with Terminal(world.panics, env={"RUST_BACKTRACE": "0"}) as terminal:
            assert "panicked at" in terminal.given_back(101)


def once(world: World) -> None:
    """top prints plain text once where there is no screen, or where it is told to"""
    asked = world.run("top", "--admin", world.url)
    assert asked.returncode == 0 and "\x1b" not in asked.stdout, asked
    lines = asked.stdout.splitlines()
    assert lines[0].startswith("calls 123 ") and lines[2].startswith("FROM ") and len(lines) == 7, lines
    tools = world.run("top", "--show", "tools", "--once", "--admin", world.url).stdout
    assert tools.splitlines()[2].startswith("TOOL ") and "divide" in tools, tools
    for flags, env in [(("--once",), {}), ((), {"TERM": "dumb"})]:
        with world.top(*flags, env=env) as terminal:
            assert "idle.team-b" in terminal.given_back(0)
    closed = subprocess.Popen([world.binary, "top", "--admin", world.url], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    closed.stdout.close()
    assert closed.wait(PATIENCE) == 0 and closed.stderr.read() == ""
    closed.stderr.close()


def calls(world: World) -> None:
    """tap prints aligned lines as calls end, asks for what its filters say, and ends after --max"""
    flags = ["--caller", "team-a/parent", "--tool", "add", "--error", "any", "--max", "3"]
    with world.tap(*flags) as tap:
        assert world.admin.asked[-1] == "/calls?caller=team-a%2Fparent&tool=add&error=any", world.admin.asked[-1]
        world.admin.call()
        titles, first = tap.stdout.readline(), tap.stdout.readline()
        world.admin.tell("missed", {"missed": 5})
        world.admin.call(error="tool_error", tool="\x1b]0;evil\x07")
        world.admin.call(caller="unknown", status=503)
        rest, _ = tap.communicate(timeout=PATIENCE)
    missed, second, third = rest.splitlines()
    assert tap.returncode == 0 and "5 calls are missing" in missed, (tap.returncode, missed)
    assert "\\u{1b}]0;evil" in second and "\x1b" not in rest and "503" in third, rest
    for title, cell in [("CALLER", "team-a/parent"), ("METHOD", "tools/call"), ("TOOL", "add")]:
        assert titles.index(title) == first.index(cell), (titles, first)


def pipes(world: World) -> None:
    """tap prints JSON lines, and ends without a word on Ctrl-C or when its reader goes, also while it waits for it"""
    with world.tap("--output", "json") as tap:
        world.admin.call(session="00000a1b")
        assert json.loads(tap.stdout.readline()) == admin.CALL | {"session": "00000a1b"}
        tap.send_signal(signal.SIGINT)
        assert (tap.wait(PATIENCE), tap.stdout.read(), tap.stderr.read()) == (0, "", "")
    with world.tap("--output", "json") as tap:
        tap.stdout.close()
        world.admin.call()
        assert (tap.wait(PATIENCE), tap.stderr.read()) == (0, "")
    with world.tap("--output", "json") as tap:
        # More than a pipe holds, of which nothing is read.
        for _ in range(20):
            world.admin.call(path="x" * 10_000)
        stat = pathlib.Path(f"/proc/{tap.pid}/task")
        waits = lambda: any("pipe_write" in (task / "wchan").read_text() for task in stat.iterdir())  # noqa: E731
        wait(waits, "it does not wait for its reader")
        tap.send_signal(signal.SIGINT)
        assert tap.wait(PATIENCE) == 0
        assert tap.stderr.read() == ""


def outage(world: World) -> None:
    """tap says that the proxy is away and goes on when it is back; one that was never there is an error"""
    with world.tap("--output", "json", "--max", "1") as tap:
        world.admin.stop()
        said = tap.stderr.readline()
        assert "asking again" in said, said
        world.admin.start()
        wait(lambda: any(line.startswith("/calls") for line in world.admin.asked[-1:]) and world.admin.readers, "no")
        assert "calls in between are not shown" in tap.stderr.readline()
        world.admin.call()
        out, err = tap.communicate(timeout=PATIENCE)
        assert (tap.returncode, json.loads(out)["tool"], err) == (0, "add", "")
    world.admin.stop()
    try:
        for words in [("tap",), ("top", "--once")]:
            refused = world.run(*words, "--admin", world.url)
            assert refused.returncode == 1 and refused.stdout == "", refused
            assert "Connection refused" in refused.stderr and "kubectl port-forward" in refused.stderr, refused
    finally:
        world.admin.start()


def tapped_screen(world: World) -> None:
    """tap in a terminal ends on Ctrl-C and leaves the lines"""
    with Terminal(world.binary, "tap", "--admin", world.url) as terminal:
        terminal.until("TIME (UTC)")
        world.admin.call()
        terminal.until("18:00:00.123  team-a/parent")
        terminal.keys("C-c")
        terminal.given_back(0)


# --- with a real proxy --------------------------------------------------------------------------------------------


def any_proxy(world: World) -> None:
    """top shows a proxy that runs: every tab, once as text, and the terminal is given back"""
    text = world.run("top", "--once", "--admin", world.url)
    assert text.returncode == 0 and text.stdout.startswith("calls "), text
    with world.top() as terminal:
        terminal.until("live", "1 edges", "FROM")
        for key, title in [("2", "METHOD"), ("3", "SESSION"), ("4", "ANSWERED LOST"), ("1", "STATE")]:
            terminal.keys(key)
            terminal.until(title)
        terminal.keys("?")
        terminal.until("Esc closes")
        terminal.keys("q", "q")
        terminal.given_back(0)


def any_call(world: World) -> None:
    """tap prints a call of a proxy that runs"""
    with world.tap("--output", "json", "--max", "1") as tap:
        out, err = tap.communicate(timeout=PATIENCE)
    assert tap.returncode == 0 and json.loads(out)["route"], (out, err)


# --- with the demo ------------------------------------------------------------------------------------------------


def demo_top(world: World) -> None:
    """top shows the faults of the demo: edges, the failing tool, the slow one, revived sessions"""
    with world.top(height=30) as terminal:
        row = r"{} +{}\.demo +{} +{} "
        terminal.until("live", order=row.format("demo/reviewer", "tools", "mcp", "failing"))
        terminal.until(order=row.format("demo/reviewer", "notes", "mcp", "undeclared"))
        terminal.until(order=row.format("demo/planner", "tools", "mcp", "slow"))
        terminal.until(order=row.format("demo/writer", "archive", "mcp", "unused"))
        terminal.keys("/")
        terminal.type("failing")
        terminal.keys("Enter")
        terminal.until('filter "failing"', "demo/reviewer", gone=("demo/planner",))
        terminal.keys("Enter")
        terminal.until("demo/reviewer → tools.demo (mcp)", "deploy")
        terminal.keys("Escape", "Escape", "2")
        terminal.until(order=r"deploy +tools/call +tools\.demo +demo/reviewer +yes")
        terminal.until(order=r"search +tools/call +tools\.demo +demo/planner +yes[^\n]* \d\.\ds")
        terminal.keys("4")
        terminal.until("notes.demo", order=r"notes\.demo +\d+ +\d+ +[1-9]", seconds=90)
        terminal.keys("q")
        terminal.given_back(0)


def demo_tap(world: World) -> None:
    """tap shows calls of the demo as they end, narrowed to one caller or to errors, in a terminal"""
    with Terminal(world.binary, "tap", "--admin", world.url) as terminal:
        terminal.until("TIME (UTC)", order=r"demo/agent +tools\.demo +mcp +tools/call +add +200 +- ")
        terminal.until(order=r"demo/reviewer +tools\.demo +mcp +tools/call +deploy +200 +tool_error ")
        terminal.keys("C-c")
        terminal.given_back(0)
    with Terminal(world.binary, "tap", "--error", "any", "--max", "2", "--admin", world.url) as terminal:
        screen = terminal.given_back(0)
        assert screen.count("tool_error") == screen.count("demo/reviewer") == 2, screen


STAND_IN = [live, keys, opened, sizes, away, ends, once, calls, pipes, outage, tapped_screen]
REAL = [any_proxy, any_call]
DEMO = [demo_top, demo_tap]


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("program")
    options.add_argument("--panics")
    options.add_argument("--admin")
    options.add_argument("--demo", action="store_true")
    options.add_argument("--only", default="")
    asked = options.parse_args()
    failed = 0
    for test in [*REAL, *(DEMO if asked.demo else [])] if asked.admin else STAND_IN:
        if asked.only not in test.__name__:
            continue
        try:
            test(World(asked.program, asked.panics, asked.admin))
            print(f"ok {test.__name__}: {test.__doc__}", flush=True)
        except Exception:  # noqa: BLE001: whatever it is, the others run
            failed += 1
            print(f"not ok {test.__name__}: {test.__doc__}\n{traceback.format_exc()}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
