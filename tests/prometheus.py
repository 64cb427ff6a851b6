#!/usr/bin/env python3
"""The alerts and dashboards of `deploy/`, in Prometheus itself.

Usage: prometheus.py [PATH_OF_KAGENT_PROXY]; else $KAGENT_PROXY, else target/debug/kagent-proxy. Needs Prometheus, or
apt-get, which gets it. PyYAML is put into an environment under `.work/`.

`promtool` checks rules and metrics, and runs the tests of the rules; each alert must be missed by them when it is
gone. Then a server of Prometheus scrapes the demo, until every query of every dashboard has data, and evaluates the
rules. Whether names are those of the code is for `tests/it/dashboards.rs`, which needs no Prometheus.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from deploy_tools import ROOT, with_yaml
from prometheus_world import Client, Prometheus, demo, fetch, prometheus, tool, until

RULES = ROOT / "deploy" / "alerts" / "kagent-proxy.yaml"
TESTS = ROOT / "tests" / "prometheus" / "alerts.test.yaml"
DASHBOARDS = sorted((ROOT / "deploy" / "dashboards").glob("*.json"))
# Queries of these have no data in the demo.
ELSEWHERE = {
    # They come from the watches of a cluster's objects.
    "kagent_proxy_discovery_up",
    "kagent_proxy_discovery_objects",
    "kagent_proxy_discovery_events_total",
    "kagent_proxy_discovery_errors_total",
    "kagent_proxy_discovery_endpoints_left_out",
    "kagent_proxy_discovery_synced",
    # They begin where a receiver of traces is configured.
    "kagent_proxy_spans_exported_total",
    "kagent_proxy_spans_dropped_total",
}
# How Grafana fills them in: its least rate interval is four scrapes; more, as this machine may be late.
WINDOWS = {"$__rate_interval": "10s", "$__range": "60s"}
SELECTOR = re.compile(r"\b(kagent_proxy_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')


class Query:
    """A query of a panel."""

    def __init__(self, board: str, panel: dict, target: dict):
        self.name = f"{board}: {panel['title']} {target['refId']}"
        self.text = target["expr"]
        self.metrics = {metric for metric, _ in SELECTOR.findall(self.text)}

    def filled(self, **chosen: str) -> str:
        """With everything chosen that a variable lets choose, but for these."""
        text = self.text
        for name, window in WINDOWS.items():
            text = text.replace(name, window)
        for name in ("route", "caller", "tool"):
            text = text.replace(f"${name}", chosen.get(name, ".*"))
        assert "$" not in text, text
        return text

    def has_data(self, server: Prometheus) -> bool:
        """A number: where there were no calls a quantile is none."""
        return any(math.isfinite(float(sample["value"][1])) for sample in server.query(self.filled()))

    def is_of_elsewhere(self) -> bool:
        return self.metrics <= ELSEWHERE


def rules(place: pathlib.Path) -> int:
    """The file of rules: valid, tested, and no test passes without the alert that it is about. How many there are."""
    import yaml

    def promtool(*arguments: object) -> subprocess.CompletedProcess:
        command = [tool("promtool"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=place)

    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    done = promtool("test", "rules", TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = re.findall(r"- alert: (\w+)", RULES.read_text())
    assert len(alerts) >= 10, alerts
    tests = yaml.safe_load(TESTS.read_text()) | {"rule_files": ["rules.yaml"]}
    (place / "tests.yaml").write_text(yaml.safe_dump(tests))
    for alert in alerts:
        without = yaml.safe_load(RULES.read_text())
        for group in without["groups"]:
            group["rules"] = [rule for rule in group["rules"] if rule["alert"] != alert]
        (place / "rules.yaml").write_text(yaml.safe_dump(without))
        done = promtool("test", "rules", "tests.yaml")
        assert done.returncode != 0, f"no test fails without {alert}"
    return len(alerts)


def queries() -> list[Query]:
    """All of all dashboards."""
    found = []
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        panels = [panel for panel in board["panels"] if panel["type"] != "row"]
        found += [Query(path.stem, panel, target) for panel in panels for target in panel["targets"]]
    assert len(DASHBOARDS) == 3 and len(found) > 60, "the search is broken"
    return found


def data(server: Prometheus, wanted: list[Query], client: Client) -> None:
    """Every query has data once; those of elsewhere, and only they, have none."""
    missing = [query for query in wanted if not query.is_of_elsewhere()]
    absent = [query for query in wanted if query.is_of_elsewhere()]

    def nothing_is_missing() -> bool:
        # Again and again: a share of calls needs some within its window.
        client.rarities()
        missing[:] = [query for query in missing if not query.has_data(server)]
        return not missing

    try:
        # The demo's server of notes forgets its sessions every 45 seconds.
        until(nothing_is_missing, "data for every query", 150, 1)
    except AssertionError as error:
        raise AssertionError("no data for " + "; ".join(query.name for query in missing)) from error
    for query in absent:
        assert not query.has_data(server), f"{query.name} has data: it is of the demo"
    assert {metric for query in absent for metric in query.metrics} == ELSEWHERE


def labels(server: Prometheus, wanted: list[Query]) -> None:
    """Each metric has the labels by which it is asked for and grouped."""
    known: dict[str, set[str]] = {}
    for query in wanted:
        if query.is_of_elsewhere():
            continue
        of_all = {"le"}
        for metric, matchers in SELECTOR.findall(query.text):
            if metric not in known:
                known[metric] = set(server.get("labels", **{"match[]": metric}))
            asked = set(MATCHER.findall(matchers))
            assert asked <= known[metric], (query.name, metric, asked - known[metric])
            of_all |= known[metric]
        for grouped in re.findall(r"\bby \(([^)]*)\)", query.text):
            assert set(grouped.split(", ")) <= of_all, (query.name, grouped)


def variables(server: Prometheus) -> None:
    """The queries of variables have values, among them those of the demo."""
    wanted = {"route": "tools.demo", "caller": "demo/planner", "tool": "search"}
    for path in DASHBOARDS:
        for variable in json.loads(path.read_text())["templating"]["list"][1:]:
            text = variable["definition"]
            for name in wanted:
                text = text.replace(f"${name}", ".*")
            if values := re.fullmatch(r"label_values\((.*), (\w+)\)", text):
                found = server.get(f"label/{values.group(2)}/values", **{"match[]": values.group(1)})
            else:
                vector = server.query(re.fullmatch(r"query_result\((.*)\)", text).group(1))
                # As Grafana writes a result, and as the variable's pattern reads it.
                lines = ["{" + ",".join(f'{k}="{v}"' for k, v in s["metric"].items()) + "}" for s in vector]
                found = [re.search(variable["regex"].strip("/"), line).group(1) for line in lines]
            assert wanted[variable["name"]] in found, (path.stem, variable["name"], found)


def meaning(server: Prometheus, wanted: list[Query]) -> None:
    """What the demo does is what the dashboards show: one tool is slow, one fails, sessions are revived."""
    by_name = {query.name: query for query in wanted}

    def value(name: str, **chosen: str) -> dict[str, float]:
        samples = server.query(by_name[name].filled(**chosen))
        label = lambda s: s["metric"].get("gen_ai_tool_name") or s["metric"].get("caller", "")  # noqa: E731
        return {label(sample): float(sample["value"][1]) for sample in samples}

    slow = until(lambda: value("tools: Tools E", tool="search"), "search was called")
    assert set(slow) == {"search"} and slow["search"] > 2, slow
    assert set(value("tools: Tools E", caller="demo/agent")) == {"add"}
    failed = value("tools: Tools B")
    assert failed.get("deploy") == 1 and not failed.get("add"), failed
    edges = value("overview: Edges A", route="agent.demo")
    assert {"demo/planner", "demo/writer", "demo/reviewer"} <= set(edges), edges


def evaluated(server: Prometheus, count: int) -> None:
    """No rule fails; what the demo does wrong is noticed, and nothing else that does not happen."""

    def all_rules() -> list[dict]:
        return [rule for group in server.get("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] != "unknown" for rule in all_rules()), "every rule was evaluated")
    found = all_rules()
    assert len(found) == count, found
    for rule in found:
        assert rule["health"] == "ok" and not rule.get("lastError"), rule

    def active(alert: str) -> list[dict]:
        (rule,) = (rule for rule in all_rules() if rule["name"] == alert)
        return [one["labels"] for one in rule["alerts"]]

    failing = until(lambda: active("KagentProxyToolFailing"), "the demo's failing tool is noticed", 90)
    assert [labels["gen_ai_tool_name"] for labels in failing] == ["deploy"], failing
    lost = active("KagentProxySessionsLost")
    assert [(labels["route"], labels["cause"]) for labels in lost] == [("notes.demo", "bad_token")], lost
    for quiet in ("KagentProxyAbsent", "KagentProxyPanicked", "KagentProxySeriesNearCap", "KagentProxyDiscoveryDown"):
        assert not active(quiet), quiet
    for rule in all_rules():
        for alert in rule["alerts"]:
            assert "error expanding" not in json.dumps(alert["annotations"]), alert


def scraped(admin: str) -> None:
    """`promtool check metrics` has nothing to say of what the proxy exposes."""
    exposed = fetch(admin, "/metrics")
    assert exposed.count(b"# TYPE kagent_proxy_") > 30, exposed
    checked = lambda text: subprocess.run(  # noqa: E731
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60
    )
    done = checked(exposed)
    assert done.returncode == 0 and not done.stderr, done.stderr.decode()
    # That it would say something.
    spoilt = exposed.replace(b"kagent_proxy_retries_total", b"kagent_proxy_retries")
    assert checked(spoilt).returncode != 0


def main() -> None:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("KAGENT_PROXY")
    program = given or str(ROOT / "target" / "debug" / "kagent-proxy")
    with contextlib.ExitStack() as stack:
        place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kagent-proxy-prometheus-")))
        count = rules(place)
        print(f"ok {count} alerts, each with its test", flush=True)
        traffic, admin = stack.enter_context(demo(program, place))
        server = stack.enter_context(prometheus(admin, RULES, place))
        client = Client(traffic)
        stack.enter_context(client.stream())
        wanted = queries()
        data(server, wanted, client)
        print(f"ok {len(wanted)} queries of dashboards, those of elsewhere apart", flush=True)
        scraped(admin)
        print("ok metrics", flush=True)
        labels(server, wanted)
        variables(server)
        meaning(server, wanted)
        print("ok labels, variables, meaning", flush=True)
        evaluated(server, count)
        print("ok rules, evaluated", flush=True)


with_yaml()
main()
