"""nginx as Debian builds it, with its symbols: what `price.py --where` names functions by.

Debian's binary is stripped, and neither it nor its mirror has the symbols. Built from Debian's source package, with the
arguments that the installed binary says it was built with, but for modules that are loaded at run time; under `.work/`,
once. Not for running by itself. Knows nothing of what is measured.
"""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The mirror has the sources of this version, not of the security update behind it (1.22.1-9+deb12u11), and no symbols
# of either. `price.py --where` prints what a request takes of the installed binary and of this one.
VERSION = "1.22.1-9+deb12u9"
SOURCES = "deb-src http://deb.debian.org/debian bookworm main\n"
NEEDS = ["build-essential", "dpkg-dev", "libpcre2-dev", "libssl-dev", "zlib1g-dev"]


def nginx_with_symbols(installed: str) -> str:
    """The path of an nginx that is built as `installed` is."""
    place = ROOT / ".work" / f"nginx-{VERSION}"
    binary = place / "nginx" / "objs" / "nginx"
    if binary.exists():
        return str(binary)
    shutil.rmtree(place, ignore_errors=True)
    run(["apt-get", "install", "-y", "-q", *NEEDS])
    source = fetched(place)
    command = subprocess.run([installed, "-V"], capture_output=True, text=True, check=True)
    arguments = shlex.split(re.search(r"configure arguments: (.*)", command.stderr)[1])
    wanted = [argument for argument in arguments if not argument.endswith("=dynamic")]
    run(["./configure", *wanted], source)
    run(["make", "-j2"], source)
    return str(binary)


def fetched(place: pathlib.Path) -> pathlib.Path:
    """The patched source, by an apt that has lists of its own, so that the machine's stay as they are."""
    for folder in ["lists/partial", "cache/archives/partial"]:
        (place / folder).mkdir(parents=True)
    (place / "sources.list").write_text(SOURCES)
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::SourceList={place}/sources.list", "-o", "Dir::Etc::SourceParts=-",
           "-o", f"Dir::State::Lists={place}/lists", "-o", f"Dir::Cache={place}/cache", "-o", "APT::Sandbox::User=root"]
    run([*apt, "update"])
    # apt holds what it fetches against the checksums that Debian has signed.
    run([*apt, "source", "--download-only", f"nginx={VERSION}"], place)
    run(["dpkg-source", "-x", f"nginx_{VERSION}.dsc", "nginx"], place)
    return place / "nginx"


def run(command: list[str], folder: pathlib.Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed: {(done.stdout + done.stderr)[-2000:]}")
