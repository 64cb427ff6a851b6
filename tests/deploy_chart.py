"""The Helm chart: linted, rendered with several sets of values, and refused where values are wrong.

`chart` is the entry, called by `deploy.py`. What holds for every deployment is in `deploy_promises.py`.
"""

import copy
import json
import re
import subprocess
import tempfile

from deploy_promises import Deployed, promises
from deploy_tools import CHART, ROOT, charted, helm, kustomized

# Every switch on, every list filled. Also rendered for a real API server by tests/kubernetes.
EVERYTHING = {
    "registry": "registry.example.com/team",
    "image": {"tag": "1.2.3", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "labels": {"team": "platform"},
    "podLabels": {"sidecar": "none", "app.kubernetes.io/name": "not-ours-to-change"},
    "podAnnotations": {"example.com/note": "yes"},
    "controller": "kagent-controller.agents",
    "rbac": {"secrets": {"team-a": ["tools-ca", "other-ca"], "team-b": ["ca"]}},
    "serviceAccount": {"annotations": {"example.com/role": "reader"}},
    "config": {
        "listeners": [
            {"name": "http", "address": "[::]:8080"},
            {
                "name": "https",
                "address": "[::]:8443",
                "tls": {"certFile": "/etc/tls/tls.crt", "keyFile": "/etc/tls/tls.key"},
            },
        ],
        "drain": {"lag": "10s", "deadline": "1m30s"},
        "discovery": {"trustedNamespaces": ["agents", "platform"], "endpoints": "service"},
        "routes": [{"match": "foo.dev", "targets": ["https://foo.dev"]}],
        "listener": {"maxConnections": 1000000},
    },
    "autoscaling": {"enabled": True, "minReplicas": 3, "maxReplicas": 30},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "agents", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {
                        "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "kagent-proxy"}},
                    },
                }
            ]
        }
    },
    "priorityClassName": "system-cluster-critical",
    "env": [{"name": "KAGENT_PROXY_LOG_LEVEL", "value": "debug"}],
    "sessions": {"existingSecret": "sealing.keys"},
    "volumes": [{"name": "tls", "secret": {"secretName": "kagent-proxy-tls"}}],
    "volumeMounts": [{"name": "tls", "mountPath": "/etc/tls", "readOnly": True}],
    "service": {"type": "LoadBalancer", "ports": {"port": 80}, "annotations": {"example.com/lb": "internal"}},
    "metrics": {
        "port": 9091,
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "15s"},
    },
    "dashboards": {
        "enabled": True,
        "labels": {"grafana_dashboard": None, "dashboards": "yes"},
        "annotations": {"grafana_folder": "kagent"},
    },
    "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
    "pdb": {"minAvailable": "50%"},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"kagent": "yes"}}}]},
}
NAMESPACED = {"rbac": {"namespaces": ["kagent", "team-a", "kagent"], "secrets": {"team-a": ["tools-ca"]}}}
NOTHING = {
    "config": {"discovery": {"enabled": False}, "routes": [{"match": "a.b", "targets": ["http://a.b:80"]}]},
    "serviceAccount": {"create": False},
    "metrics": {"enabled": False},
    "pdb": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "replicas": 1,
}
# Values that cannot be meant, and what the one who wrote them reads.
REFUSED = [
    ({"replicaCount": 3}, "additional properties 'replicaCount' not allowed"),
    ({"image": {"name": "x"}}, "at '/image': additional properties 'name' not allowed"),
    ({"controller": "kagent-controller"}, "at '/controller'"),
    ({"service": {"ports": {"port": 70000}}}, "at '/service/ports/port'"),
    ({"rbac": {"namespaces": ["Team A"]}}, "at '/rbac/namespaces/0'"),
    ({"rbac": {"secrets": {"team-a": []}}}, "at '/rbac/secrets/team-a'"),
    ({"rbac": {"namespaces": ["team-a"]}}, 'does not name the release\'s own namespace "kagent"'),
    ({"sessions": {"existingSecret": "Our Key"}}, "at '/sessions/existingSecret'"),
    ({"sessions": {"key": "x"}}, "at '/sessions': additional properties 'key' not allowed"),
    ({"dashboards": {"labels": {"grafana_dashboard": 1}}}, "at '/dashboards/labels/grafana_dashboard'"),
    ({"alerts": {"thresholds": {}}}, "at '/alerts': additional properties 'thresholds' not allowed"),
    ({"networkPolicy": {"profile": "1.1"}}, "at '/networkPolicy/profile'"),
    ({"networkPolicy": {"profile": "1.0", "from": [{"namespaceSelector": {}}]}}, "profile 1.0 would have no effect"),
    ({"config": {"listeners": []}}, "config.listeners[0]: no address with a port"),
    ({"config": {"listeners": [{"name": "x"}]}}, "config.listeners[0]: no address with a port"),
    ({"config": {"admin": {"address": None}}}, "config.admin: no address with a port"),
]


def chart(binary: str) -> None:
    """Everything about the chart."""
    about()
    standard(binary)
    everything(binary)
    namespaced(binary)
    nothing(binary)
    sight()
    callers(binary)
    names(binary)
    keys()
    rollouts()
    notes()
    guide(binary)
    for values, reason in REFUSED:
        done = helm("template", "kagent-proxy", str(CHART), "--namespace", "kagent", values=values)
        assert done.returncode != 0 and reason in done.stderr, (values, done.stderr)


def about() -> None:
    """Lint, versions, and a values file of one screen whose every key the schema knows, and no other."""
    import yaml

    for values in ({}, EVERYTHING, NAMESPACED, NOTHING):
        linted = helm("lint", "--strict", "--namespace", "kagent", str(CHART), values=values)
        assert linted.returncode == 0, linted.stdout + linted.stderr
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    described = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert described["appVersion"] == version, "the image's default tag"
    text = (CHART / "values.yaml").read_text()
    assert len(text.splitlines()) <= 60, "one screen"
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert known(schema) - {"global"} == written(yaml.safe_load(text), schema)


def known(schema: dict, path: str = "") -> set[str]:
    """The paths of all keys that the schema names."""
    found = set()
    for key, inner in schema.get("properties", {}).items():
        found |= {path + key} | known(inner, f"{path}{key}.")
    return found


def written(values: dict, schema: dict, path: str = "") -> set[str]:
    """The paths of all keys in the values, not below what the schema leaves open."""
    found = set()
    for key, value in values.items():
        inner = schema["properties"].get(key, {})
        found |= {path + key}
        if "properties" in inner:
            found |= written(value, inner, f"{path}{key}.")
    return found


def standard(binary: str) -> None:
    """Without a value: the same proxy as the kustomize base's."""
    deployed = promises(charted(), binary, [])
    base = Deployed(kustomized("kubernetes"))
    assert deployed.deployment["spec"]["replicas"] == base.deployment["spec"]["replicas"] == 2
    # Who deploys without Helm makes the Secret.
    assert {o["kind"] for o in deployed.objects} == {o["kind"] for o in base.objects} | {"Secret"}
    assert not deployed.all("ServiceMonitor") and not deployed.all("HorizontalPodAutoscaler")
    assert plain(deployed) == plain(base)
    assert deployed.config == base.config
    for o in deployed.objects:
        assert o["metadata"].get("namespace", "kagent") == "kagent"
    (budget, other) = deployed.one("PodDisruptionBudget"), base.one("PodDisruptionBudget")
    assert budget["spec"] | {"selector": 0} == other["spec"] | {"selector": 0}


def plain(deployed: Deployed) -> dict:
    """The pod without what may differ: selectors and defaults that one of both spells out."""
    pod = copy.deepcopy(deployed.pod)
    for constraint in pod["topologySpreadConstraints"]:
        del constraint["labelSelector"]
    (container,) = pod["containers"]
    container.pop("imagePullPolicy", None)
    for port in container["ports"]:
        port.pop("protocol", None)
    return pod


def everything(binary: str) -> None:
    """Every switch has its effect."""
    secrets = EVERYTHING["rbac"]["secrets"]
    deployed = promises(charted(EVERYTHING), binary, [], secrets)
    for kind in ("HorizontalPodAutoscaler", "ServiceMonitor", "NetworkPolicy", "PodDisruptionBudget"):
        assert deployed.one(kind)
    pod, container = deployed.pod, deployed.container
    assert container["image"] == "registry.example.com/team/kagent-proxy:1.2.3"
    assert container["imagePullPolicy"] == "Always"
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[key] == EVERYTHING[key], key
    for key, value in (("env", EVERYTHING["env"]), ("volumeMounts", EVERYTHING["volumeMounts"])):
        # Behind the chart's own two.
        assert container[key][2:] == value, key
    assert pod["volumes"][2:] == EVERYTHING["volumes"]
    assert not deployed.all("Secret"), "somebody else's"
    assert pod["volumes"][1]["secret"] == {"secretName": EVERYTHING["sessions"]["existingSecret"]}
    assert all(o["metadata"]["labels"]["team"] == "platform" for o in deployed.objects)
    assert deployed.labels["sidecar"] == "none"
    assert deployed.labels["app.kubernetes.io/name"] == "kagent-proxy", "selectors stay whole"
    annotations = deployed.deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations["example.com/note"] == "yes"
    assert "prometheus.io/scrape" not in annotations, "nobody scrapes twice"
    assert deployed.ports == {"http": 8080, "http-2": 8443, "admin": 9091}
    service = deployed.all("Service")[0]
    assert service["spec"]["type"] == "LoadBalancer"
    assert [port["port"] for port in service["spec"]["ports"]] == [80, 8443]
    assert service["metadata"]["annotations"] == {"example.com/lb": "internal"}
    assert deployed.one("ServiceAccount")["metadata"]["annotations"] == {"example.com/role": "reader"}
    assert deployed.one("PodDisruptionBudget")["spec"]["minAvailable"] == "50%"
    assert "maxUnavailable" not in deployed.one("PodDisruptionBudget")["spec"]
    traffic, admin = deployed.one("NetworkPolicy")["spec"]["ingress"]
    assert traffic["from"] == EVERYTHING["networkPolicy"]["from"]
    assert admin["from"] == [{"namespaceSelector": {}}]
    scaler = deployed.one("HorizontalPodAutoscaler")["spec"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 30)
    # One pod at a time, and not before the one before it may be gone.
    (policy,) = scaler["behavior"]["scaleDown"]["policies"]
    assert policy["value"] == 1 and policy["periodSeconds"] == pod["terminationGracePeriodSeconds"]
    monitor = deployed.one("ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["endpoints"][0]["interval"] == "15s"
    assert deployed.config["discovery"] == {
        "enabled": True,
        "controller": "kagent-controller.agents",
        "trustedNamespaces": ["agents", "platform"],
        "endpoints": "service",
    }
    assert deployed.config["listener"]["maxConnections"] == 1000000, "no 1e+06"


def namespaced(binary: str) -> None:
    """Roles in the named namespaces, nothing of the cluster's own, and the program watches just these."""
    deployed = promises(charted(NAMESPACED), binary, ["kagent", "team-a"], {"team-a": ["tools-ca"]})
    assert not deployed.all("ClusterRole") and not deployed.all("ClusterRoleBinding")
    # Permissions that somebody else manages.
    values = {"rbac": {"create": False, "namespaces": ["kagent"]}}
    bound = Deployed(charted(values))
    assert not bound.all("Role") and not bound.all("RoleBinding")
    assert bound.pod["automountServiceAccountToken"] is True
    assert bound.config["discovery"]["namespaces"] == ["kagent"]


def nothing(binary: str) -> None:
    """Everything that can be switched off, off: static routes without a permission or a token."""
    deployed = promises(charted(NOTHING), binary, [])
    assert sorted(o["kind"] for o in deployed.objects) == ["ConfigMap", "Deployment", "Secret", "Service"]
    assert deployed.pod["serviceAccountName"] == "default"
    assert deployed.deployment["spec"]["replicas"] == 1
    annotations = deployed.deployment["spec"]["template"]["metadata"]["annotations"]
    assert "prometheus.io/scrape" not in annotations


def sight() -> None:
    """Dashboards and alerts: none without a word; else the files of `deploy/`, byte by byte."""
    import yaml

    plain = Deployed(charted())
    assert not plain.all("PrometheusRule") and len(plain.all("ConfigMap")) == 1
    files = sorted((ROOT / "deploy" / "dashboards").glob("*.json"))
    assert [file.stem for file in files] == ["overview", "sessions", "tools"]
    for values, labels, annotations in (
        ({"dashboards": {"enabled": True}}, {"grafana_dashboard": "1"}, None),
        (EVERYTHING, {"dashboards": "yes"}, {"grafana_folder": "kagent"}),
    ):
        maps = [o for o in charted(values) if "-dashboard-" in o["metadata"]["name"]]
        held = {name: text for o in maps for name, text in o["data"].items()}
        assert held == {f"kagent-proxy-{file.name}": file.read_text() for file in files}
        assert [o["metadata"]["name"] for o in maps] == [f"kagent-proxy-dashboard-{file.stem}" for file in files]
        for o in maps:
            found = o["metadata"]["labels"]
            assert {key: found.get(key) for key in ("grafana_dashboard", "dashboards") if key in found} == labels
            assert o["metadata"].get("annotations") == annotations
    rule = Deployed(charted(EVERYTHING)).one("PrometheusRule")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "alerts" / "kagent-proxy.yaml").read_text())


def callers(binary: str) -> None:
    """The profiles of the NetworkPolicy: who may call for each kagent."""
    everyone = [{"namespaceSelector": {}}]

    def only(*names: str) -> list[dict]:
        return [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in names]

    for values, expected in (
        ({}, everyone),
        ({"profile": "both"}, everyone),
        ({"profile": "0.10"}, everyone),
        ({"profile": "1.0"}, only("ate-system", "kagent")),
        ({"from": []}, []),
        ({"from": everyone}, everyone),
    ):
        deployed = promises(charted({"networkPolicy": values}), binary, [])
        traffic, _ = deployed.one("NetworkPolicy")["spec"]["ingress"]
        assert traffic["from"] == expected, (values, traffic)
        assert {port["port"] for port in traffic["ports"]} == {"http"}
    elsewhere = {"networkPolicy": {"profile": "1.0"}, "controller": "controller.agents"}
    traffic, _ = promises(charted(elsewhere), binary, []).one("NetworkPolicy")["spec"]["ingress"]
    assert traffic["from"] == only("ate-system", "agents")


def names(binary: str) -> None:
    """Names and namespaces as kagent's chart has them; two releases do not meet."""
    one = promises(charted(release="kagent-proxy", namespace="a"), binary, [])
    two = promises(charted(release="kagent-proxy", namespace="b"), binary, [])
    key = lambda o: (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])  # noqa: E731
    assert not set(map(key, one.objects)) & set(map(key, two.objects))
    assert one.config["discovery"]["controller"] == "kagent-controller.a"
    for release, values, name in (
        ("kagent", {}, "kagent-kagent-proxy"),
        ("kagent", {"nameOverride": "proxy"}, "kagent-proxy"),
        ("kagent", {"fullnameOverride": "front"}, "front"),
        ("kagent", {"fullnameOverride": "f" * 70}, "f" * 55),
    ):
        deployed = promises(charted(values, release=release), binary, [])
        assert deployed.deployment["metadata"]["name"] == name
        assert all(len(s["metadata"]["name"]) <= 63 for s in deployed.all("Service"))
    moved = promises(charted({"namespaceOverride": "elsewhere"}), binary, [])
    assert moved.namespace == "elsewhere"
    # OpenShift gives numbers of its own, so the chart must be able to leave them out.
    openshift = Deployed(charted({"podSecurityContext": {"runAsUser": None, "runAsGroup": None}}))
    assert set(openshift.pod["securityContext"]) == {"runAsNonRoot", "seccompProfile"}
    own = promises(charted({"serviceAccount": {"create": False, "name": "shared"}}), binary, [])
    assert own.pod["serviceAccountName"] == "shared"


def keys() -> None:
    """No two installations have one key. That an upgrade keeps it needs a cluster: tests/kubernetes."""
    one, two = (Deployed(charted()).one("Secret") for _ in range(2))
    assert one["metadata"] == two["metadata"] and one["data"] != two["data"]


def rollouts() -> None:
    """New routes roll nothing, because the program follows them; anything else does."""

    def checksum(values: dict) -> str:
        template = Deployed(charted({"config": values})).deployment["spec"]["template"]
        return template["metadata"]["annotations"]["checksum/config"]

    route = {"match": "a.b", "targets": ["http://a.b:80"]}
    assert checksum({}) == checksum({"routes": [route]})
    assert checksum({}) == checksum({"defaultRoutes": [{"targets": ["http://a.b:80"]}]})
    assert checksum({}) != checksum({"log": {"level": "debug"}})
    # The grace period follows the drain, also where the drain is the program's own.
    for drain, grace in (({"lag": "500ms", "deadline": "1h2m3s"}, 3749), (None, 330), ({"lag": None}, 330)):
        pod = Deployed(charted({"config": {"drain": drain}})).pod
        assert pod["terminationGracePeriodSeconds"] == grace, drain


def notes() -> None:
    """What Helm says after an installation names the Service that was made."""
    for values, wanted in (
        (
            {},
            [
                "proxy.url=http://kagent-proxy.kagent.svc.cluster.local:8080",
                "url: http://kagent-proxy.kagent.svc:8080/mcp",
                "port-forward deployment/kagent-proxy 9091",
                "curl http://127.0.0.1:9091/routes",
                "the key of Secret kagent-proxy-sessions. Upgrades keep it",
            ],
        ),
        ({"sessions": {"existingSecret": "ours"}}, ["the keys of Secret ours, key `key`. Pods wait"]),
        (
            {"config": {"clusterDomain": "corp.example"}, "service": {"ports": {"port": 80}}},
            ["proxy.url=http://kagent-proxy.kagent.svc.corp.example:80", "url: http://kagent-proxy.kagent.svc:80/mcp"],
        ),
        (NOTHING, ["Discovery is off"]),
        # The port for everyone has the other one's number, or is on loopback itself.
        ({"metrics": {"port": 9091}}, ["port-forward deployment/kagent-proxy 9090"]),
        (
            {"config": {"admin": {"address": "127.0.0.1:9095"}}},
            ["port-forward deployment/kagent-proxy 9095"],
        ),
        ({"config": {"admin": {"local": "127.0.0.1:9096"}}}, ["port-forward deployment/kagent-proxy 9096"]),
        ({"rbac": {"create": False}}, ["does not become ready"]),
        (
            {"rbac": {"namespaces": ["kagent"]}, "controller": "kagent-controller.agents"},
            ["Only agents and tool servers of kagent are found", "controller's namespace agents is not among them"],
        ),
    ):
        command = ("install", "kagent-proxy", str(CHART), "--namespace", "kagent", "--dry-run=client")
        done = helm(*command, values=values)
        assert done.returncode == 0, done.stderr
        said = done.stdout.partition("NOTES:")[2]
        assert all(text in said for text in wanted), said


def guide(binary: str) -> None:
    """The values that deploy/README.md shows are values of the chart."""
    import yaml

    text = (ROOT / "deploy" / "README.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    # The files of sidecars are the program's own.
    files = [block for block in blocks if isinstance(block, dict) and "listeners" in block]
    assert files, "the guide shows a sidecar's file"
    for file in files:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as written:
            yaml.safe_dump(file, written)
            written.flush()
            done = subprocess.run([binary, "check", "--config", written.name], capture_output=True, text=True)
            assert done.returncode == 0, (file, done.stdout, done.stderr)
    shown = [block for block in blocks if isinstance(block, dict) and not {"kind", "listeners"} & set(block)]
    assert len(shown) >= 4, "the guide shows values"
    for values in shown:
        promises(charted(values), binary, [], values.get("rbac", {}).get("secrets"))
    flags = [flag.strip("'") for flag in re.findall(r"--set ('[^']+'|[^'\s`]+)", text)]
    ours = [flag for flag in flags if not flag.startswith("proxy.") and "RELEASE" not in flag]
    assert len(ours) >= 3, flags
    for flag in ours:
        done = helm("template", "kagent-proxy", str(CHART), "--namespace", "kagent", "--set", flag, values={})
        assert done.returncode == 0, (flag, done.stderr)
