#!/usr/bin/env python3
"""Sessions under faults: real clients and servers, a schedule of faults from a seed, and what was lost at the end.

Usage: run.py PROGRAM [--seeds 1,2,...] [--faults N] [--mode proxy,direct,nginx,envoy] [--servers KIND,...]
[--clients KIND,...] [--sessions revive|pin|pass]. README.md beside says what happens. A seed is run with the next
kind of server each time, or with all of them by `--all-servers`. Prints a line for each run, a table of what each
way lost, and `N passed, N failed`: behind the proxy nothing may be lost, the others only have to end.

`--sessions pass --expect "session errors"` shows that the run can fail, as does a PROGRAM with a fault of its own, such
as repeats.py. KAGENT_PROXY_CHAOS_PROGRAM may name PROGRAM too.
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True

import judge_test  # noqa: E402
import kinds  # noqa: E402
from clients import Client  # noqa: E402
from faults import Faults  # noqa: E402
from judge import KINDS, Verdict, judge  # noqa: E402
from processes import Stage  # noqa: E402
from ways import WAYS  # noqa: E402
from world import World  # noqa: E402

# A fault takes one or two seconds where nothing hangs.
SECONDS_EACH_FAULT = 45
SECONDS_BESIDES = 180
# Lines of the story for one of its faults.
STORY_LINES = 60


async def play(arguments: argparse.Namespace, mode: str, kind: str, seed: int, count: int, stage: Stage) -> Verdict:
    way = WAYS[mode](stage, arguments.program, arguments.sessions)
    # Either of them once in two seeds, and both ways in a run of seven seeds.
    chooses = kind in kinds.CHOOSES and (seed + kinds.CHOOSES.index(kind)) % 2 == 0
    unknown = "400" if chooses else "404"
    world = World(stage, way, kind, unknown)
    faults = Faults(world, f"{seed}")
    ends, traffic = asyncio.Event(), []
    try:
        await world.start(arguments.clients, arguments.each, f"{seed}")
        schedule = faults.schedule(count, arguments.only)
        traffic += [asyncio.create_task(client.traffic(ends)) for client in world.clients]
        for name in schedule:
            await faults.play(name)
            if arguments.streams:
                await streams(world, f"after {name}")
            for task in traffic:
                if task.done():
                    task.result()  # why a client's traffic ended
        ends.set()
        await asyncio.gather(*traffic)
        await streams(world, "at the end")
        return judge(world, faults.played)
    finally:
        for task in traffic:
            task.cancel()
        await asyncio.gather(*traffic, return_exceptions=True)
        await world.close()


async def streams(world: World, when: str) -> None:
    """Every client must hear what its server says outside of a call."""

    async def listens(client: Client) -> None:
        async with client.lock:
            if not await client.listens():
                text = f"{client.name} hears nothing on its GET stream {when}"
                world.ledger.deaf.append((time.time(), text))
                world.stage.story.tell(text)
                client.broken = True  # a session anew, to see the next loss

    await asyncio.gather(*(listens(client) for client in world.clients))


async def run(arguments: argparse.Namespace, mode: str, kind: str, seed: int, count: int) -> Verdict | None:
    """One seed, and its line. Nothing is returned if it could not be run to its end."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kagent-proxy-chaos-"))
    folder.chmod(0o755)  # nginx's worker is another user
    stage, began = Stage(folder), time.monotonic()
    name = f"{mode} {kind} seed {seed}"
    try:
        async with asyncio.timeout(SECONDS_BESIDES + count * SECONDS_EACH_FAULT):
            verdict = await play(arguments, mode, kind, seed, count, stage)
    except Exception as error:  # whatever it was, the seed was not run
        traceback.print_exc()
        print(f"not ok {name}: {type(error).__name__}: {error}", flush=True)
        print("\n".join(stage.story.around(time.time(), " ", 20)[-STORY_LINES:]))
        verdict = None
    else:
        losses = ", ".join(f"{verdict.counts[k]} {k}" for k in KINDS if verdict.counts[k]) or "nothing lost"
        good = is_good(arguments, mode, verdict)
        took = f"slowest under way {verdict.slowest:.2f} s, after {verdict.slowest_after:.2f} s"
        if verdict.slowest_fault:
            took += f" ({verdict.slowest_fault})"
        what = f"{count} faults, {verdict.calls} calls, {verdict.told} told lost, {took}, {losses}"
        print(f"{'ok' if good else 'not ok'} {name}: {what} ({time.monotonic() - began:.0f} s)", flush=True)
        if not good:
            report(arguments, mode, kind, seed, count, stage, verdict)
    finally:
        await stage.close()
        if arguments.keep:
            print(f"# {name}: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return verdict


def is_good(arguments: argparse.Namespace, mode: str, verdict: Verdict | None) -> bool:
    """Whether a run ended as it must."""
    if verdict is None or mode != "proxy":
        return verdict is not None
    return verdict.counts[arguments.expect] > 0 if arguments.expect else not verdict.faults


def report(arguments, mode: str, kind: str, seed: int, count: int, stage: Stage, verdict: Verdict) -> None:
    """What went wrong, what happened around it, and how to see it again."""
    for _, _, text in verdict.faults[:20]:
        print(f"#   {text}")
    if len(verdict.faults) > 20:
        print(f"#   and {len(verdict.faults) - 20} more")
    # The first of each kind.
    firsts = {text.partition(":")[0]: (at, client, text) for at, client, text in sorted(verdict.faults, reverse=True)}
    for at, client, text in firsts.values():
        print(f"#   around {text[:80]}")
        for line in stage.story.around(at, client or "nobody")[-STORY_LINES:]:
            print(f"#     {line[:240]}")
    words = f"--mode {mode} --servers {kind} --clients {','.join(arguments.clients)} --seeds {seed}"
    print(f"# again: tests/chaos/run.py {arguments.program} {words} --faults {count}", flush=True)


def table(found: dict[str, list[Verdict]]) -> None:
    columns = ["calls", "told lost", *KINDS, "slowest under way", "slowest after"]
    print(f"# {'':18}" + "".join(f"{mode:>10}" for mode in found))
    for column in columns:
        row = f"# {column:18}"
        for verdicts in found.values():
            if column.startswith("slowest"):
                pick = "slowest" if column == "slowest under way" else "slowest_after"
                row += f"{max((getattr(v, pick) for v in verdicts), default=0):>8.2f} s"
            else:
                pick = {"calls": "calls", "told lost": "told"}.get(column)
                row += f"{sum(getattr(v, pick) if pick else v.counts[column] for v in verdicts):>10}"
        print(row)


def words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", nargs="?", default=os.environ.get("KAGENT_PROXY_CHAOS_PROGRAM"))
    parser.add_argument("--seeds", type=words, default=list("1234567"))
    parser.add_argument("--faults", type=int, default=70, help="of the whole run, shared by its seeds")
    parser.add_argument("--mode", type=words, default=["proxy"])
    parser.add_argument("--servers", type=words, default=kinds.SERVERS)
    parser.add_argument("--clients", type=words, default=kinds.AGENTS)
    parser.add_argument("--each", type=int, default=1, help="clients of each kind")
    parser.add_argument("--sessions", choices=["revive", "pin", "pass"], default="revive")
    parser.add_argument("--only", type=words, default=[], help="faults by name, such as 'kill idle same,peer'")
    parser.add_argument("--expect", choices=KINDS, help="the loss that a PROGRAM with a fault must have")
    parser.add_argument("--all-servers", action="store_true", help="every seed with every kind of server")
    parser.add_argument("--streams", action="store_true", help="look at the GET streams after each fault; slower")
    parser.add_argument("--keep", action="store_true", help="keep the folders with logs and marks")
    found = parser.parse_args()
    if found.program is None:
        parser.error("no PROGRAM")
    found.program = str(pathlib.Path(found.program).resolve())
    return found


async def main() -> int:
    asked = arguments()
    for number in (signal.SIGTERM, signal.SIGINT):
        task = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    seeds = [int(seed) for seed in asked.seeds]
    pairs = [(seed, asked.servers[n % len(asked.servers)]) for n, seed in enumerate(seeds)]
    if asked.all_servers:
        pairs = [(seed, kind) for seed in seeds for kind in asked.servers]
    count = max(1, -(-asked.faults // len(pairs)))
    found: dict[str, list[Verdict]] = {mode: [] for mode in asked.mode}
    wrong = judge_test.faults()
    print("\n".join(f"not ok the judge, {text}" for text in wrong) or "ok the judge finds each loss")
    passed, failed = int(not wrong), len(wrong)
    for seed, kind in pairs:
        for mode in asked.mode:
            verdict = await run(asked, mode, kind, seed, count)
            good = is_good(asked, mode, verdict)
            passed, failed = passed + good, failed + (not good)
            if verdict is not None:
                found[mode].append(verdict)
    table(found)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


with contextlib.suppress(asyncio.CancelledError):
    sys.exit(asyncio.run(main()))
sys.exit(1)
