"""kagent-adk 0.10.4 as an agent whose MCP server dies in its turn: in the second tool call, and while the model thinks.

The server is the one of `tests/chaos`: it counts in its session and writes a mark for each call. A tool that may have
run must not run again, the model must read what became of it, and the turn must go on.
"""

import json
import pathlib
import threading
import time

from adk import agent, over_http, turn
from harness import HERE, ROOT, Results, Stage, free_port, python, run_suite

HOST = "count.tools"
LOST = "may or may not have taken effect"
SECONDS = 30


def until(condition, what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {SECONDS} s")
        time.sleep(0.01)  # between two looks


class World:
    """An agent with a script of three calls, and their server. Steps of a turn wait for files that its name begins."""

    def __init__(self, stage: Stage, adk: str, mcp: str) -> None:
        self.stage, self.mcp, self.port = stage, mcp, free_port()
        self.marks_file = stage.folder / "marks"
        stub, self.agent = free_port(), free_port()

        def call(number: int, gate: str) -> dict:
            return {"client": "$user", "number": number, "gate": gate, "announce": False}

        call_gate, model_gate = (str(stage.folder / f"$user-{what}") for what in ("call", "model"))
        script = [["count", call(1, "")], ["count", call(2, call_gate)], ["count", call(3, ""), model_gate]]
        stage.start("stub", [adk, HERE / "python" / "stub_kagent.py", stub, json.dumps(script)], stub)
        self.start()
        self.proxy = stage.proxy({HOST: self.port})
        tools = {"http_tools": [over_http(f"{self.proxy.url}/mcp", HOST, "count")]}
        agent(stage, adk, "agent", stub, tools, f"http://127.0.0.1:{self.agent}", self.agent)

    def start(self) -> None:
        """The server, at the address it always has."""
        program = ROOT / "tests" / "chaos" / "servers" / "python_1.py"
        command = [self.mcp, program, self.port, "pod", self.marks_file, "404"]
        self.server = self.stage.start("server", command, self.port)

    def gate(self, name: str) -> pathlib.Path:
        return self.stage.folder / name

    def marks(self, name: str) -> list[int]:
        """The numbers of the calls that ran in a turn, in order."""
        lines = self.marks_file.read_text().splitlines() if self.marks_file.exists() else []
        found = [json.loads(line) for line in lines]
        return [mark["number"] for mark in found if mark["step"] == "began" and mark["client"] == name]

    def turn(self, name: str, fault) -> tuple[str, list[str]]:
        """A turn with a fault in it; its state, and what the model has read of each tool."""
        seen: list = []
        asking = threading.Thread(target=lambda: seen.append(turn(self.agent, name)), daemon=True)
        asking.start()
        fault()
        self.stage.stop(self.server)
        self.start()
        self.gate(f"{name}-model").touch()
        asking.join(2 * SECONDS)
        if not seen:
            raise TimeoutError(f"the turn {name} does not end")
        state, said = seen[0]
        return state, said.removeprefix("results: ").split(" | ")


def run(results: Results, stage: Stage, environments: tuple[str, str]) -> None:
    world = World(stage, *environments)
    world.gate("idle-call").touch()
    # In the second call, which never ends; and between two calls, while the model waits.
    faults = {
        "killed": lambda: until(lambda: 2 in world.marks("killed"), "the second call begins"),
        "idle": lambda: until(world.gate("idle-model-waits").exists, "the model waits"),
    }
    for name, fault in faults.items():
        state, said = world.turn(name, fault)
        results.check(f"{name} turn goes on", state == "completed", (state, said))
        results.check(f"{name} each call ran once", world.marks(name) == [1, 2, 3], world.marks(name))
        results.check(f"{name} all three are told to the model", len(said) == 3, said)
        lost = [LOST in text for text in said]
        results.check(f"{name} the model reads what is lost", lost == [False, name == "killed", False], said)
    results.through("turns", world.proxy, HOST, 12)


run_suite("kagent-adk faults", lambda: (python("adk"), python("mcp-1")), run)
