"""The ground that a run stands on: a Python with PyYAML, and namespaces of the run's own.

Networks, mounts and processes of a run live in namespaces that end with it, however it ends, and its file
system is an overlay over the machine's: nothing is left behind and two runs do not meet. Knows nothing of
Kubernetes. `enter` starts the program again inside, so all that needs the outside network comes before it.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from deploy_tools import with_yaml as with_yaml  # noqa: E402  one environment for both

INSIDE = "KAGENT_PROXY_TEST_GROUND"


class Missing(Exception):
    """What this machine lacks, in one sentence."""


def enter() -> None:
    """Goes on inside the namespaces; returns there."""
    if os.environ.get(INSIDE):
        overlay()
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=10)
        return
    if os.geteuid() != 0:
        raise Missing("Root is needed to make network namespaces for pods: run this as root.")
    tools = {"ip": "iproute2", "unshare": "util-linux", "mount": "mount", "setpriv": "util-linux"}
    for tool, package in tools.items():
        if not shutil.which(tool):
            raise Missing(f"The command {tool} is missing: apt-get install {package}.")
    probe = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True, text=True, timeout=10
    )
    if probe.returncode != 0:
        raise Missing(f"Namespaces cannot be made here, pods need them: {probe.stderr.strip()}.")
    os.environ[INSIDE] = "inside"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", [*command, sys.executable, *sys.argv])


def overlay() -> None:
    """An overlay for a root, so that mount points of pods may be made anywhere."""
    here = os.getcwd()
    # Hidden here only: below the overlay the folder is as it was.
    place = pathlib.Path("/tmp")

    def mount(*arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            raise Missing(f"An overlay cannot be mounted here: mount {arguments}: {done.stderr.strip()}.")

    # The overlay's upper folder may not lie below its lower one, so it has a file system of its own.
    mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(place))  # what a run writes ends with it
    for name in ("upper", "work", "root"):
        (place / name).mkdir(mode=0o755)
    root = place / "root"
    layers = f"lowerdir=/,upperdir={place}/upper,workdir={place}/work"
    mount("-t", "overlay", "-o", layers, "overlay", str(root))
    for name in ("proc", "dev", "sys"):
        mount("--rbind", f"/{name}", str(root / name))
    os.chroot(root)
    os.chdir(here)
    for name in ("/run/netns", "/etc/netns"):
        pathlib.Path(name).mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "tmpfs", "/run/netns")
