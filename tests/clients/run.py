#!/usr/bin/env python3
"""Real clients against real servers, direct and through the proxy, compared check by check.

Usage: run.py [--matrix] PATH_OF_KAGENT_PROXY [SUITE...]. Runs the suites of `suites/`, two at a time. Each makes
the environments it needs under `.work/`, from pins; what cannot be made is a failure. Prints `ok NAME` and
`not ok NAME: why` lines and, last, `N passed, N failed`. `--matrix` writes what was measured into
`docs/compatibility.md`; without it, and with all suites, the page must show that.
"""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile

import matrix

HERE = pathlib.Path(__file__).resolve().parent
# Environments from a cold cache included; what runs on them is held far shorter by the harness.
SUITE_SECONDS = 1800


def run(program: str, suite: pathlib.Path) -> list[str]:
    """The lines of one suite; one that ends badly without a `not ok` gets one."""
    command = [sys.executable, str(suite), program]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=SUITE_SECONDS)
        fault = f"ended with {process.returncode}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the suite's own session, which we started
        output, _ = process.communicate()
        fault = f"still running after {SUITE_SECONDS} s"
    lines = [line for line in output.splitlines() if re.match(r"(not )?ok ", line)]
    said = any(line.startswith("not ok ") for line in lines)
    if not lines or (process.returncode != 0 and not said):
        lines.append(f"not ok {suite.stem}: {fault}")
    return lines


def main() -> int:
    arguments = [argument for argument in sys.argv[1:] if argument != "--matrix"]
    program = str(pathlib.Path(arguments[0]).resolve())
    suites = sorted((HERE / "suites").glob("*.py"))
    if arguments[1:]:
        suites = [HERE / "suites" / f"{name}.py" for name in arguments[1:]]
    measured = pathlib.Path(tempfile.mkdtemp(prefix="kagent-proxy-measured-")) / "lines"
    os.environ["KAGENT_PROXY_MEASURED"] = str(measured)
    passed = failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for lines in pool.map(lambda suite: run(program, suite), suites):
            print("\n".join(lines), flush=True)
            bad = sum(line.startswith("not ok ") for line in lines)
            passed, failed = passed + len(lines) - bad, failed + bad
    if len(arguments) < len(sys.argv) - 1:
        matrix.write(measured)
    elif not arguments[1:]:
        line = matrix.verdict(measured)
        print(line)
        passed, failed = passed + line.startswith("ok"), failed + line.startswith("not")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


sys.exit(main())
