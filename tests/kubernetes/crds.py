"""The custom resource definitions: those of ../shared/crds where that folder is there, else small ones of ours.

Also reads ../shared/golden, what the real controllers wrote. Knows files only, no server.
"""

import json
import pathlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
OWN = "own"


def shared(name: str) -> pathlib.Path | None:
    """A folder of `shared` beside the checkout or above it."""
    for above in HERE.parents:
        if (above / "shared" / name).is_dir():
            return above / "shared" / name
    return None


def documents(path: pathlib.Path) -> list[dict]:
    return [document for document in yaml.load_all(path.read_text(), yaml.CSafeLoader) if document]


def versions() -> list[str]:
    """Names for `definitions`, ours first."""
    place = shared("crds")
    return [OWN] + (sorted(p.name for p in place.glob("kagent-*")) if place else [])


# The newest release, where its definitions are at hand.
DEFAULT = "kagent-0.10.0-rc3" if shared("crds") else OWN


def definitions(version: str = DEFAULT) -> list[dict]:
    """The definitions of one kagent version and kmcp's."""
    place = shared("crds")
    if version == OWN:
        return documents(HERE / "crds" / "kagent.yaml")
    files = sorted((place / version).glob("*.yaml")) + sorted((place).glob("kmcp-*/*.yaml"))
    return [document for path in files for document in documents(path)]


def of_1_0() -> list[dict]:
    """Our small definitions of kagent 1.0's group; they may be beside any other."""
    return documents(HERE / "crds" / "kagent-1.0.yaml")


def golden(name: str):
    """One file of the record, parsed; None without the record."""
    place = shared("golden")
    if place is None:
        return None
    path = place / name
    return documents(path) if path.suffix == ".yaml" else json.loads(path.read_text())
