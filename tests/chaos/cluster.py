#!/usr/bin/env python3
"""Clients of every SDK, and kagent-adk as an agent, against servers that a cluster runs; what they lost.

Usage: cluster.py FOLDER SPACE. Servers of every kind are pods in the namespace SPACE and write their marks to
`FOLDER/KIND`; clients reach them through a Service in small whose replicas the cluster names. Orders come on standard
input, a JSON object for each: `ready` with the proxies' addresses, `ends` with a pod and when its calls may be lost
from and to, `proxies` with the same of a proxy, `more` with a number of calls, `end`. Each of the last two is answered
by a line, `end` with what `judge.py` found for each kind of server. Knows nothing of Kubernetes.
"""

import asyncio
import collections
import json
import pathlib
import sys
import time
import types

sys.dont_write_bytecode = True

import kinds  # noqa: E402  and with it the path of the client suites
from clients import Agents, Client, Ledger  # noqa: E402
from judge import KINDS, judge  # noqa: E402
from processes import Marks, Stage, within  # noqa: E402
from service import Service  # noqa: E402
from world import FAR  # noqa: E402

import adk  # noqa: E402
import harness  # noqa: E402

# Clients that each kind of server has: those of its number and of the one three further, so that all kinds meet two.
STEPS = (1, 4)
# The agent's server.
AGENTS_KIND = "kmcp"
# Seconds between two steps of a client, at most; rollouts on two cores need some of their own.
PACE = 1.0
LIMIT_SECONDS = 120


def host(kind: str, space: str) -> str:
    """The name of a kind's Service."""
    return f"{kind.replace('_', '-')}.{space}"


class Pods(dict):
    """What is known of the end of each pod: nothing, until somebody says so."""

    def __missing__(self, name: str) -> types.SimpleNamespace:
        self[name] = found = types.SimpleNamespace(leaves=FAR, ended=FAR, away=[])
        return found


class Round:
    """One kind of server with its clients: as much of a world as the judge looks at."""

    def __init__(self, stage: Stage, kind: str, folder: pathlib.Path) -> None:
        self.kind, self.ledger, self.clients = kind, Ledger(), []
        self.stage = types.SimpleNamespace(marks=Marks(folder / kind), story=stage.story)
        self.every_pod, self.forgot, self.replica_losses = Pods(), [], []

    async def start(self, stage: Stage, url: str, space: str) -> None:
        number = kinds.SERVERS.index(self.kind)
        for step in STEPS:
            kind = kinds.AGENTS[(number + step) % len(kinds.AGENTS)]
            process = Agents(stage, kind, kinds.agent(kind, url, host(self.kind, space)))
            await process.start()
            client = Client(process, f"{kind}-{number}", self.ledger, f"{self.kind} {kind}")
            client.pace = PACE
            self.clients.append(client)
        await asyncio.gather(*(client.open() for client in self.clients))

    def found(self) -> dict:
        verdict = judge(self, [])
        counts = {kind: verdict.counts[kind] for kind in KINDS if verdict.counts[kind]}
        faults = [text for _, _, text in sorted(verdict.faults)]
        opened = sum(mark["step"] == "opened" for mark in self.stage.marks.all)
        who = " and ".join(client.base.partition("-")[0] for client in self.clients)
        return {
            "clients": who, "calls": verdict.calls, "told": verdict.told, "opened": self.ledger.opened,
            "opened at the servers": opened, "counts": counts, "faults": faults[:8],
        }  # fmt: skip


class Agent:
    """A kagent agent that has one turn of three calls after another."""

    def __init__(self, url: str, name: str, marks: Marks, program: str) -> None:
        self.stage, self.marks, self.turns, self.faults = harness.Stage(program), marks, 0, []
        self.port, stub = harness.free_port(), harness.free_port()
        python = harness.python("adk")
        call = {"client": "$user", "gate": "", "announce": False}
        script = [["count", {**call, "number": number}] for number in (1, 2, 3)]
        stub_program = harness.HERE / "python" / "stub_kagent.py"
        self.stage.start("stub", [python, stub_program, stub, json.dumps(script)], stub)
        tools = {"http_tools": [adk.over_http(url, name, "count")]}
        adk.agent(self.stage, python, "agent", stub, tools, f"http://127.0.0.1:{self.port}", self.port)

    async def follow(self, ends: asyncio.Event) -> None:
        while not ends.is_set():
            name = f"adk-{self.turns}"
            try:
                state, said = await asyncio.to_thread(adk.turn, self.port, name)
            except OSError as error:
                state, said = f"{type(error).__name__}: {error}", ""
            self.marks.read()
            ran = [(len(self.marks.of(name, number)), number) for number in (1, 2, 3)]
            results = said.removeprefix("results: ").split(" | ")
            good = state == "completed" and len(results) == 3 and all(results) and all(n < 2 for n, _ in ran)
            if not good:
                self.faults.append(f"{name} {state}, ran (times, call) {ran}: {said}")
            self.turns += 1


class Cluster:
    def __init__(self, folder: pathlib.Path, space: str) -> None:
        self.folder, self.space = folder, space
        work = folder / "clients"
        work.mkdir()
        self.stage = Stage(work)
        self.service = Service(self.stage, self.stage.story.tell)
        self.rounds = {kind: Round(self.stage, kind, folder) for kind in kinds.SERVERS}
        self.ends, self.traffic = asyncio.Event(), []
        self.agent: Agent | None = None

    async def start(self) -> None:
        """One kind after another: starting is most of what clients cost."""
        url = f"http://127.0.0.1:{self.service.port}/mcp"
        marks = self.rounds[AGENTS_KIND].stage.marks
        name = host(AGENTS_KIND, self.space)
        self.agent = await asyncio.to_thread(Agent, url, name, marks, "none")
        for turn in self.rounds.values():
            await turn.start(self.stage, url, self.space)
        clients = [client for turn in self.rounds.values() for client in turn.clients]
        self.traffic = [asyncio.create_task(client.traffic(self.ends)) for client in clients]
        self.traffic.append(asyncio.create_task(self.agent.follow(self.ends)))

    def answered(self) -> dict[str, int]:
        """How many calls each client has had answered; turns, of the agent."""
        count: collections.Counter = collections.Counter()
        for kind, turn in self.rounds.items():
            for client in turn.clients:
                count[client.base] = 0
            for call in turn.ledger.calls:
                count[call.client.rpartition(".")[0]] += bool(call.outcome)
        return count | {"adk": 3 * self.agent.turns}

    async def more(self, calls: int) -> None:
        before = self.answered()
        while any(now < before[name] + calls for name, now in self.answered().items()):
            for task in self.traffic:
                if task.done():
                    task.result()  # why a client's traffic ended
            await asyncio.sleep(0.05)  # between two looks

    async def end(self) -> dict:
        self.ends.set()
        await within(LIMIT_SECONDS, asyncio.gather(*self.traffic), "clients end")
        found = {kind: turn.found() for kind, turn in self.rounds.items()}
        return {"kinds": found, "turns": self.agent.turns, "agent": self.agent.faults}

    async def order(self, what: dict) -> object:
        if what["do"] == "ready":
            self.service.become(what["addresses"])
        elif what["do"] == "ends":
            pod = self.rounds[what["kind"]].every_pod[what["pod"]]
            pod.leaves, pod.ended = min(pod.leaves, what["from"]), what["to"] or FAR
        elif what["do"] == "proxies":
            for turn in self.rounds.values():
                turn.replica_losses.append((what["from"], what["to"]))
        elif what["do"] == "start":
            await self.start()
            return {"started": len(self.traffic)}
        elif what["do"] == "more":
            await within(LIMIT_SECONDS, self.more(what["calls"]), "every client's calls are answered")
            return {"more": self.answered()}
        return None

    async def follow(self) -> None:
        """Orders, until there is none or one says `end`."""
        orders = asyncio.StreamReader(limit=1 << 20)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
        await self.service.start()
        waits = set()
        try:
            while line := await orders.readline():
                what = json.loads(line)
                if what["do"] == "end":
                    return say(await self.end())
                # Some take their time, and others must be heard meanwhile.
                waits.add(asyncio.create_task(self.obey(what)))
        finally:
            for task in [*waits, *self.traffic]:
                task.cancel()
            await asyncio.gather(*waits, *self.traffic, return_exceptions=True)
            if self.agent is not None:
                self.agent.stage.close()
            await self.stage.close()

    async def obey(self, what: dict) -> None:
        try:
            answer = await self.order(what)
        except Exception as error:  # whatever it was, the cluster waits for an answer
            story = "\n".join(self.stage.story.around(time.time(), " ", 20)[-40:])
            answer = {"fault": f"{type(error).__name__}: {error}\n{story}"}
        if answer is not None:
            say(answer)


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(Cluster(pathlib.Path(sys.argv[1]), sys.argv[2]).follow())
