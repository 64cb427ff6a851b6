"""Where the instructions of a run go: each by the function that holds it, inlined ones too, and these in groups.

callgrind counts by address. llvm-symbolizer says which functions an address of the program is in, innermost first; the
first of them that `groups.py` knows takes the instruction. What many parts use (copies, formatting, maps of fields)
goes to those that call it, each its share. Knows no proxy and starts none.
"""

import collections
import functools
import pathlib
import re
import subprocess

import groups

Place = tuple  # object, address
VARIANT = re.compile(r"^__((?:mem|str)[a-z]+?)(_chk)?_(avx|evex|sse|ssse).*")


class Run:
    """What callgrind wrote: instructions by address, and by call."""

    def __init__(self, files: list[pathlib.Path]) -> None:
        self.own: collections.Counter = collections.Counter()
        # Of each callee's name, where it is called from, with what that cost.
        self.calls: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        # What each address belongs to as callgrind sees it.
        self.function: dict[Place, str] = {}
        for file in files:
            self.read(file)

    def read(self, file: pathlib.Path) -> None:
        names: dict = {}
        here = {"fn": "", "ob": "", "cfn": ""}
        called = False
        for line in file.read_text(errors="replace").splitlines():
            if match := re.match(r"(c?)(fn|ob)=\((\d+)\)(?: (.*))?$", line):
                key = (match[2], match[3])
                if match[4]:
                    # Recursion is no other function, nor is a copy for some processors.
                    names[key] = VARIANT.sub(r"\1", match[4].split("'")[0])
                here[match[1] + match[2]] = names[key]
            elif line.startswith("calls="):
                called = True
            elif line.startswith("0x"):
                address, _, cost = line.split()
                place = (here["ob"], int(address, 16))
                self.function[place] = here["fn"]
                if called:
                    self.calls[here["cfn"]][place] += int(cost)
                else:
                    self.own[place] += int(cost)
                called = False

    def beyond(self, few: "Run") -> "Run":
        """What this run has more than that one."""
        more = Run([])
        more.own = collections.Counter(self.own)
        more.own.subtract(few.own)
        more.function = few.function | self.function
        for callee, places in self.calls.items():
            more.calls[callee] = collections.Counter(places)
            more.calls[callee].subtract(few.calls.get(callee, {}))
        return more


def frames(program: str, run: Run) -> dict[Place, list[str]]:
    """The functions that each address is in, innermost first, with the files that they stand in."""
    places = sorted(set(run.function))
    found = {place: [run.function[place]] for place in places}
    own = [place for place in places if place[0].endswith("/" + pathlib.Path(program).name)]
    command = ["llvm-symbolizer", f"--obj={program}", "--inlines", "--output-style=LLVM"]
    text = "".join(f"{address:#x}\n" for _, address in own)
    answers = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    for place, answer in zip(own, answers.strip().split("\n\n"), strict=True):
        lines = answer.splitlines()
        named = [f"{name} {file.split(':')[0]}" for name, file in zip(lines[::2], lines[1::2]) if name != "??"]
        found[place] = named or found[place]
    return found


class Table:
    """Instructions by group and function, of one program."""

    def __init__(self, program: str, run: Run, requests: int, rules: groups.Rules) -> None:
        self.run, self.rules = run, rules
        self.frames = frames(program, run)
        self.groups: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        for place, cost in run.own.items():
            if cost:
                for (group, function), share in self.shares(place).items():
                    self.groups[group][function] += cost * share / requests

    def shares(self, place: Place) -> dict:
        """Which functions an instruction belongs to, and how much of it."""
        return self.of_shared(self.run.function[place]) if self.is_shared(place) else {self.known(place): 1}

    def is_shared(self, place: Place) -> bool:
        return self.rules.is_shared(self.run.function[place])

    @functools.cache
    def known(self, place: Place) -> tuple[str, str]:
        return self.rules.group(self.frames[place])

    @functools.cache
    def of_shared(self, function: str, above: tuple = ()) -> dict:
        """The same of one that is its callers', each its share; `above` are those that call each other."""
        found: collections.Counter = collections.Counter()
        for place, cost in self.run.calls.get(function, {}).items():
            caller = self.run.function[place]
            if cost <= 0 or caller in above:
                continue
            if self.is_shared(place):
                for key, share in self.of_shared(caller, (*above, function)).items():
                    found[key] += cost * share
            else:
                found[self.known(place)] += cost
        whole = sum(found.values())
        if not whole:
            return {} if above else {(groups.OTHER, function): 1}
        return {key: cost / whole for key, cost in found.items()}

    def total(self, group: str) -> float:
        return sum(self.groups[group].values())


def show(tables: dict[str, Table], most: int) -> None:
    """A table of the groups, and what takes most of each."""
    print("| | " + " | ".join(tables) + " |")
    print("|---|" + "---|" * len(tables))
    for group in groups.ORDER:
        print(f"| {group} | " + " | ".join(f"{table.total(group):,.0f}" for table in tables.values()) + " |")
    whole = [sum(table.total(group) for group in groups.ORDER) for table in tables.values()]
    print("| all | " + " | ".join(f"{each:,.0f}" for each in whole) + " |")
    for group in groups.ORDER:
        print(f"\n{group}")
        for name, table in tables.items():
            largest = table.groups[group].most_common(most)
            print(f"  {name}: " + ", ".join(f"{function} {cost:,.0f}" for function, cost in largest if cost >= 1))
