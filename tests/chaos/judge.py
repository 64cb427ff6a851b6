"""What a round lost: counted at the servers by their marks, at the clients by what they saw, and put side by side.

A call is executed twice if it has two marks. A session may only move if the one before was lost, by its pod, by its
server, or by the proxy that remembered it; and it never comes back to one that it left. It moves by what its server
opens for it, whether or not a call comes there: of two that are opened for one loss, the second is without need.
"""

import collections
import dataclasses
import json
import re

import kinds
from clients import Call
from faults import Fault
from world import World

# A call that was under way when a fault happened.
BOUND_SECONDS = 3.0


@dataclasses.dataclass
class Verdict:
    counts: dict[str, int] = dataclasses.field(default_factory=collections.Counter)
    calls: int = 0
    told: int = 0
    slowest: float = 0.0  # of the answered calls that were under way
    slowest_after: float = 0.0  # of those that began in a fault
    slowest_fault: str = ""
    # When, which client, and what.
    faults: list[tuple[float, str, str]] = dataclasses.field(default_factory=list)

    def fault(self, kind: str, at: float, text: str) -> None:
        client = next((word for word in text.replace("'", " ").split() if CLIENT.match(word)), "")
        self.counts[kind] += 1
        self.faults.append((at, client.rstrip(":,"), f"{kind}: {text}"))


# The name of a client's session in a text.
CLIENT = re.compile(r"[a-z]+(_\d+)?-\d+\.\d+\b")
# In the order of the table. All must be 0 behind kagent-proxy.
KINDS = [
    "session errors", "not opened", "executed twice", "unanswered", "late", "wrong answer",
    "told without need", "moved without need", "wrong counter", "deaf streams",
]  # fmt: skip


def judge(world: World, faults: list[Fault]) -> Verdict:
    verdict, ledger = Verdict(), world.ledger
    world.stage.marks.read()
    verdict.calls = len(ledger.calls)
    _clients(world, verdict)
    for (client, number), marks in world.stage.marks.by_call.items():
        if len(marks) > 1:
            where = ", ".join(f"{mark['pod']} session {mark['session'][:8]}" for mark in marks)
            verdict.fault("executed twice", marks[1]["at"], f"{client} call {number} at {where}")
    _under_way(faults, verdict)
    _sessions(world, verdict)
    return verdict


def _clients(world: World, verdict: Verdict) -> None:
    ledger = world.ledger
    failed = {call.client for call in ledger.calls if call.outcome == "error"}
    for at, text in ledger.refused:
        verdict.fault("not opened", at, text)
    for at, text in ledger.torn:
        if text.partition(":")[0] not in failed:  # else its calls say so already
            verdict.fault("session errors", at, f"torn down, {text}")
    for at, text in ledger.deaf:
        verdict.fault("deaf streams", at, text)
    for call in ledger.calls:
        if call.outcome == "error":
            verdict.fault("session errors", call.answered, f"{call}, {call.text}")
        elif call.outcome in ("unanswered", ""):
            verdict.fault("unanswered", call.began, f"{call}, {call.text}")
        elif call.outcome == "told":
            verdict.told += 1
            if not _may_be_lost(world, call):
                verdict.fault("told without need", call.answered, f"{call}, {call.text}")
        elif call.kind == "count":
            _answer(world, call, verdict)


def _answer(world: World, call: Call, verdict: Verdict) -> None:
    """A result must be the one of the mark."""
    marks = world.stage.marks.of(call.client, call.number)
    try:
        said = json.loads(call.text)
    except ValueError:
        said = {}
    keys = ("pod", "session", "client", "number", "counter")
    if not any(all(said.get(key) == mark[key] for key in keys) for mark in marks):
        verdict.fault("wrong answer", call.answered, f"{call}, {call.text}, its marks {marks}")


def _may_be_lost(world: World, call: Call) -> bool:
    """Whether a pod that may have had the call went away while it was under way, or forgot its session."""
    marks = world.stage.marks.of(call.client, call.number)
    names = {mark["pod"] for mark in marks} or set(world.every_pod)
    ends = [(pod.leaves, pod.ended) for name, pod in world.every_pod.items() if name in names]
    ends += [(begin, end) for name, begin, end in world.forgot if name in names]
    return any(begin <= call.answered and end >= call.began for begin, end in ends)


def _under_way(faults: list[Fault], verdict: Verdict) -> None:
    for fault in faults:
        for call, since in fault.under_way:
            if call.outcome in ("result", "told"):
                took = call.answered - since
                verdict.slowest = max(verdict.slowest, took)
                if took > BOUND_SECONDS:
                    verdict.fault("late", call.answered, f"{call}, {took:.2f} s after {fault.name}")
        for call in fault.after:
            took = call.answered - call.began
            if call.outcome in ("result", "told") and took > verdict.slowest_after:
                verdict.slowest_after, verdict.slowest_fault = took, fault.name
            # While no server runs there is nothing to answer with.
            if call.outcome in ("result", "told") and took > BOUND_SECONDS and fault.name != "outage":
                verdict.fault("late", call.answered, f"{call}, {took:.2f} s, begun in {fault.name}")


def _sessions(world: World, verdict: Verdict) -> None:
    """Every client's way through the sessions that servers opened for it, and every session's counter."""
    began = {(call.client, call.number): call.began for call in world.ledger.calls}
    last: dict[tuple[str, str], float] = {}  # the time of a session's last mark
    paths: dict[str, list[dict]] = collections.defaultdict(list)  # the first mark in each session
    owners: dict[tuple[str, str], str] = {}
    counters: dict[tuple[str, str], int] = collections.Counter()
    for mark in world.stage.marks.all:
        if mark["step"] not in ("opened", "began") or mark["client"] is None:
            continue  # a client that does not say its name when it opens a session
        client, place = mark["client"], (mark["pod"], mark["session"])
        counters[place] += mark["step"] == "began"
        if mark["step"] == "began" and counters[place] != mark["counter"]:
            verdict.fault("wrong counter", mark["at"], f"{mark}, the session has had {counters[place]} calls")
        if owners.setdefault(place, client) != client:
            verdict.fault("wrong answer", mark["at"], f"{client} is in the session of {owners[place]}")
        path = paths[client]
        if not path or (path[-1]["pod"], path[-1]["session"]) != place:
            if any((old["pod"], old["session"]) == place for old in path):
                if began.get((client, mark.get("number")), mark["at"]) <= path[-1]["at"]:
                    continue  # it was on its way when the session moved
                verdict.fault("moved without need", mark["at"], f"{client} is back in {place}")
            path.append(mark)
        last[place] = mark["at"]
    for client, path in paths.items():
        spent: set[float] = set()
        for number, (old, new) in enumerate(zip(path, path[1:], strict=False)):
            silent = new["at"] - last[old["pod"], old["session"]]
            if silent < kinds.IDLE_SECONDS.get(world.kind, float("inf")) and not _was_lost(
                world, old, new, number > 0, spent
            ):
                text = f"{client} from {old['pod']} {old['session'][:8]} to {new['pod']} {new['session'][:8]}"
                verdict.fault("moved without need", new["at"], text)


def _was_lost(world: World, old: dict, new: dict, revived: bool, spent: set[float]) -> bool:
    pod = world.every_pod[old["pod"]]
    if pod.leaves <= new["at"]:
        return True
    lost = pod.away + [(begin, end) for name, begin, end in world.forgot if name == old["pod"]]
    if any(begin <= new["at"] and old["at"] <= end for begin, end in lost):
        return True
    # A revived session is known to proxies only, and may be lost once with each that goes.
    for begin, end in world.replica_losses:
        if revived and begin not in spent and old["at"] <= end and begin <= new["at"]:
            spent.add(begin)
            return True
    return False
