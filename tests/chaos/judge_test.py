"""The judge finds each loss: made-up rounds, each with one thing wrong, and one with none.

`run.py` begins with it, for a count that cannot fail proves nothing. By itself: `python3 judge_test.py`.
"""

import json
import pathlib
import tempfile
import types

from clients import Call, Ledger
from faults import Fault
from judge import KINDS, judge
from processes import Marks

FAR = float("inf")


def call(
    number: int, outcome: str = "result", began: float = 0.0, answered: float = 0.1, **marked
) -> tuple[Call, dict]:
    """A call of client c-0.1 and its mark: in session s1 of pod p1, the counter as the number."""
    mark = {"client": "c-0.1", "number": number, "pod": "p1", "session": "s1", "counter": number, **marked}
    made = Call("c-0.1", number, "count", began, outcome=outcome, answered=answered)
    made.text = json.dumps(mark) if outcome == "result" else outcome
    return made, {"step": "began", "at": began, **mark}


def losses(
    calls: list[tuple[Call, dict | None]],
    twice: bool = False,
    gone: tuple[str, float] = ("", FAR),
    forgot: list[tuple[str, float, float]] = (),
    away: list[list[float]] = (),
    opened: list[dict] = (),
    replicas: list[tuple[float, float]] = (),
    faults: list[Fault] = (),
    **seen,
) -> dict[str, int]:
    """What the judge counts in a round with these calls."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Marks(pathlib.Path(folder) / "marks")
        lines = [mark for _, mark in calls if mark is not None]
        lines = sorted([*lines, *lines[-1:] * twice, *opened], key=lambda mark: mark["at"])
        marks.path.write_text("".join(json.dumps(mark) + "\n" for mark in lines))
        pods = {name: types.SimpleNamespace(leaves=FAR, ended=FAR, away=[]) for name in ("p1", "p2")}
        pods["p1"].away = list(away)
        if gone[0]:
            pods[gone[0]].leaves = pods[gone[0]].ended = gone[1]
        world = types.SimpleNamespace(
            kind="python_1",
            stage=types.SimpleNamespace(marks=marks),
            ledger=Ledger(calls=[made for made, _ in calls], **seen),
            every_pod=pods,
            forgot=forgot,
            replica_losses=replicas,
        )
        found = judge(world, faults)
        return {kind: found.counts[kind] for kind in KINDS if found.counts[kind]}


def rounds() -> list[tuple[str, dict, dict]]:
    """Name, what the judge must count, and what it did."""
    there = {"pod": "p2", "session": "s2"}
    slow, slow_mark = call(1, answered=9.0)
    under_way = [Fault("kill", 1.0, under_way=[(slow, 1.0)])]
    after = [Fault("kill", 0.0, after=[slow])]
    unmarked = call(2)[0]
    other = call(2)[1] | {"client": "c-1.1"}
    moved = [call(1), call(2, began=5, answered=5.1, counter=1, **there)]
    again = [*moved, call(3, began=6, answered=6.1, counter=2)]
    third = [*moved, call(3, began=6, answered=6.1, counter=1, pod="p2", session="s3")]
    told = call(1, "told", answered=2.0)

    def opened(at: float, **where: str) -> dict:
        return {"step": "opened", "client": "c-0.1", "at": at, "pod": "p1", "session": "s1", **where}

    unused = [opened(-1), opened(3, **there), opened(3.1, pod="p2", session="s3")]
    calls = [call(1), call(2, began=5, answered=5.1, counter=1, pod="p2", session="s3")]
    return [
        ("nothing", {}, losses([call(1), call(2)])),
        ("an error", {"session errors": 1}, losses([call(1, "error")])),
        ("torn down", {"session errors": 1}, losses([call(1)], torn=[(1.0, "c-0.1: reset")])),
        ("refused", {"not opened": 1}, losses([call(1)], refused=[(1.0, "c-0.1: 503")])),
        ("deaf", {"deaf streams": 1}, losses([call(1)], deaf=[(1.0, "c-0.1")])),
        ("no answer", {"unanswered": 1}, losses([call(1, "unanswered")])),
        ("never answered", {"unanswered": 1}, losses([call(1, "")])),
        ("twice", {"executed twice": 1, "wrong counter": 1}, losses([call(1)], twice=True)),
        ("slow under way", {"late": 1}, losses([(slow, slow_mark)], faults=under_way)),
        ("slow after", {"late": 1}, losses([(slow, slow_mark)], faults=after)),
        ("no mark", {"wrong answer": 1}, losses([call(1), (unmarked, None)])),
        ("another's session", {"wrong answer": 2}, losses([call(1), (unmarked, other)])),
        ("told", {}, losses([told], gone=("p1", 1.0))),
        ("told without need", {"told without need": 1}, losses([told])),
        ("told after another pod's end", {"told without need": 1}, losses([told], gone=("p2", 1.0))),
        ("told while its session is forgotten", {}, losses([told], forgot=[("p1", 1.0, 1.1)])),
        ("told before", {"told without need": 1}, losses([told], forgot=[("p1", 3.0, 3.1)])),
        ("told although its pod is only no endpoint", {"told without need": 1}, losses([told], away=[[1.0, FAR]])),
        ("revived", {}, losses(moved, gone=("p1", 2.0))),
        ("revived while its pod is no endpoint", {}, losses(moved, away=[[2.0, 3.0]])),
        ("moved when its pod is one again", {"moved without need": 1}, losses(moved, away=[[-2.0, -1.0]])),
        ("revived by what is opened", {}, losses(moved, gone=("p1", 2.0), opened=[unused[0], unused[1]])),
        ("opened twice for one loss", {"moved without need": 1}, losses(calls, gone=("p1", 2.0), opened=unused)),
        ("and the other one used", {"moved without need": 3}, losses(moved, gone=("p1", 2.0), opened=unused)),
        ("opened for none", {"moved without need": 1}, losses([call(1)], opened=[unused[0], unused[1]])),
        ("revived after it was forgotten", {}, losses(moved, forgot=[("p1", 2.0, 2.1)])),
        ("moved", {"moved without need": 1}, losses(moved)),
        ("moved before the end", {"moved without need": 1}, losses(moved, gone=("p1", 7.0))),
        ("a proxy's death moves none", {"moved without need": 1}, losses(moved, replicas=[(2.0, 2.1)])),
        ("moved again", {"moved without need": 1}, losses(third, gone=("p1", 2.0))),
        ("moved again by a proxy's death", {}, losses(third, gone=("p1", 2.0), replicas=[(5.5, 5.6)])),
        ("back", {"moved without need": 2}, losses(again, gone=("p1", 2.0))),
        ("late at the old one", {}, losses([*moved, call(3, began=4.9, answered=6, at=5.5, counter=2)], gone=("p1", 2.0))),
        ("counter", {"wrong counter": 1}, losses([call(1), call(2, counter=5)])),
    ]


def faults() -> list[str]:
    return [f"{name}: counted {did}, must count {must}" for name, must, did in rounds() if did != must]


if __name__ == "__main__":
    print("\n".join(faults()) or "ok")
