#!/usr/bin/env python3
"""kagent-proxy against a real control plane, with pods of its own making.

Usage: run.py PATH_OF_KAGENT_PROXY [FILE | FILE:NAME]... Builds or finds the programs (build.py), goes on in
namespaces of its own (ground.py), starts the plane and the kubelet, and runs the scenarios of `scenarios/`,
one after another. Prints `ok NAME` and `not ok NAME: why` lines and, last, `N passed, N failed`. What this
machine lacks is a failure, said in one sentence.
"""

import contextlib
import importlib
import pathlib
import signal
import sys
import time
import traceback

import ground

HERE = pathlib.Path(__file__).resolve().parent


def chosen(wanted: list[str]) -> list:
    """The scenarios of the files, in the files' order."""
    from world import SCENARIOS

    sys.path.insert(0, str(HERE / "scenarios"))
    for path in sorted((HERE / "scenarios").glob("*.py")):
        importlib.import_module(path.stem)
    return [
        test
        for test in SCENARIOS
        if not wanted or test.__module__ in wanted or f"{test.__module__}:{test.__name__}" in wanted
    ]


def run(program: str, wanted: list[str]) -> tuple[int, int]:
    from kubelet import Kubelet
    from network import GATEWAY, Network
    from plane import Plane
    from relay import Relay
    from world import World, images

    tests = chosen(wanted)
    if not tests:
        raise ground.Missing(f"No scenario is called {' or '.join(wanted)}.")
    passed = failed = 0
    network = Network()
    with (
        Plane(GATEWAY) as plane,
        contextlib.closing(Relay(GATEWAY, (GATEWAY, plane.port))) as relay,
        Kubelet(plane.api, network, images(program), relay.port) as kubelet,
    ):
        world = World(program, plane, kubelet, network, relay)
        place = ""
        for test in tests:
            name = (test.__doc__ or test.__name__).splitlines()[0].rstrip(".")
            began = time.monotonic()
            world.notes.clear()
            try:
                if test.__module__ != place:
                    # Each file starts without a proxy.
                    place = test.__module__
                    world.end_proxy()
                test(world)
                line = f"ok {name}"
                passed += 1
            except Exception as error:  # noqa: BLE001: whatever it was, it is this scenario's failure
                why = " ".join(f"{type(error).__name__}: {error}".split("\n"))
                line = f"not ok {name}: {why[:4000]}"
                failed += 1
                traceback.print_exc()
            print("\n".join([*world.notes, line]), flush=True)
            print(f"  {test.__module__}:{test.__name__} took {time.monotonic() - began:.1f} s", file=sys.stderr)
    return passed, failed


def main(program: str, wanted: list[str]) -> int:
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    program = str(pathlib.Path(program).resolve())
    try:
        import build

        build.programs(*build.PLANE, "helm")
        for environment in build.ENVIRONMENTS:
            build.python(environment)
        if not wanted or any(word.startswith("k_sdks") for word in wanted):
            build.sdks()
        if not wanted or any(word.startswith("l_counts") for word in wanted):
            build.books()
        if not wanted or any(word.startswith("o_eras") for word in wanted):
            build.eras()
        ground.with_yaml()
        ground.enter()
        passed, failed = run(program, wanted)
    except (ground.Missing, build.Missing) as lack:
        print(f"not ok kubernetes: {lack}")
        passed, failed = 0, 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
