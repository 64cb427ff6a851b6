"""What every way of deploying promises, asserted on the rendered objects of one proxy.

`promises` is the entry. It knows neither Helm nor kustomize: whoever renders gives the objects, and says
which namespaces they may read.
"""

import base64
import os
import pathlib
import re
import subprocess
import tempfile

READ = {"get", "list", "watch"}
# (group, resource) that discovery watches in a namespace, and besides in the whole cluster.
WATCHED = {
    ("", "services"),
    ("", "pods"),
    ("discovery.k8s.io", "endpointslices"),
    ("kagent.dev", "agents"),
    ("kagent.dev", "sandboxagents"),
    ("kagent.dev", "remotemcpservers"),
    ("api.kagent.dev", "agents"),
    ("api.kagent.dev", "agenttemplates"),
    ("api.kagent.dev", "remotemcpservers"),
    ("kagent.dev", "mcpservers"),
}
CLUSTER_ONLY = {("", "namespaces")}
# Volumes of the restricted standard that a proxy has a use for.
VOLUMES = {"configMap", "secret", "projected"}
# Where the key of sessions is.
KEYS = "/etc/kagent-proxy-sessions"


class Deployed:
    """The objects of one proxy, by kind."""

    def __init__(self, objects: list[dict]) -> None:
        import yaml

        self.objects = objects
        self.deployment = self.one("Deployment")
        self.labels = self.deployment["spec"]["template"]["metadata"]["labels"]
        self.pod = self.deployment["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        # Others hold dashboards.
        (volume,) = [v for v in self.pod["volumes"] if v["name"] == "config"]
        mounted = volume["configMap"]["name"]
        (self.settings,) = [o for o in self.all("ConfigMap") if o["metadata"]["name"] == mounted]
        self.file = self.settings["data"]["config.yaml"]
        self.config = yaml.safe_load(self.file)
        self.namespace = self.deployment["metadata"]["namespace"]

    def all(self, kind: str) -> list[dict]:
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind: str) -> dict:
        (only,) = self.all(kind)
        return only


def promises(objects: list[dict], binary: str, namespaces: list[str], secrets: dict | None = None) -> Deployed:
    """All of them. No namespaces: the whole cluster is watched; `secrets` by namespace may be read."""
    deployed = Deployed(objects)
    where = [((o["metadata"].get("namespace"), o["kind"], o["metadata"]["name"])) for o in objects]
    assert len(set(where)) == len(where), "two objects of one name"
    for o in objects:
        assert o["kind"].startswith("Cluster") or o["metadata"]["namespace"], o["metadata"]
        assert o["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kagent", o["metadata"]
    restricted(deployed.pod)
    lifecycle(deployed)
    selectors(deployed)
    sessions(deployed)
    configuration(deployed, binary)
    discovers = deployed.config["discovery"]["enabled"]
    assert deployed.pod["automountServiceAccountToken"] is discovers
    assert deployed.config["discovery"].get("namespaces", []) == namespaces
    permissions(deployed, namespaces, secrets or {}, discovers)
    return deployed


def seconds(text: str) -> int:
    parts = re.findall(r"(\d+)([hms])", text)
    assert parts and "".join(n + unit for n, unit in parts) == text, text
    return sum(int(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in parts)


def restricted(pod: dict) -> None:
    """The restricted Pod Security Standard, and what we promise besides."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
        assert not pod.get(forbidden), forbidden
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= VOLUMES
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert not any("hostPort" in port for port in container["ports"])
        assert container["resources"]["requests"] and "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]
    assert pod["enableServiceLinks"] is False


def lifecycle(deployed: Deployed) -> None:
    """Rollouts without a gap, pods apart from each other, probes, drains that fit."""
    spec, pod, container = deployed.deployment["spec"], deployed.pod, deployed.container
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert {c["topologyKey"] for c in pod["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}, probe
    drain = deployed.config["drain"]
    lag, deadline = seconds(drain["lag"]), seconds(drain["deadline"])
    assert lag + deadline < pod["terminationGracePeriodSeconds"] <= lag + deadline + 60
    readiness = container["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < lag
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["KAGENT_PROXY_POD_IPS"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIPs"}}


def selectors(deployed: Deployed) -> None:
    """Everything that selects pods selects these, and every port leads to one of theirs."""
    labels, ports = deployed.labels, deployed.ports
    chosen = [deployed.deployment["spec"]["selector"]["matchLabels"]]
    chosen += [service["spec"]["selector"] for service in deployed.all("Service")]
    chosen += [budget["spec"]["selector"]["matchLabels"] for budget in deployed.all("PodDisruptionBudget")]
    chosen += [c["labelSelector"]["matchLabels"] for c in deployed.pod["topologySpreadConstraints"]]
    for selector in chosen:
        assert selector and selector.items() <= labels.items(), selector
    services = {service["metadata"]["name"]: service for service in deployed.all("Service")}
    name = deployed.deployment["metadata"]["name"]
    targets = {port["targetPort"] for port in services[name]["spec"]["ports"]}
    assert targets == set(ports) - {"admin"}, "the traffic Service has the traffic ports and no other"
    for service in set(services) - {name}:
        assert [p["targetPort"] for p in services[service]["spec"]["ports"]] == ["admin"], service
    for policy in deployed.all("NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert policy["spec"]["policyTypes"] == ["Ingress"], "backends may be anywhere"
        assert {p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]} == set(ports)
        # Replicas ask each other of sessions there, and kubelets and scrapers come.
        admin = [rule["from"] for rule in policy["spec"]["ingress"] if "admin" in {p["port"] for p in rule["ports"]}]
        assert [{"namespaceSelector": {}}] in admin, "every pod reaches the admin port, replicas too"
    for scaler in deployed.all("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
    assert ("replicas" in deployed.deployment["spec"]) is not bool(deployed.all("HorizontalPodAutoscaler"))
    for monitor in deployed.all("ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"]
        (endpoint,) = monitor["spec"]["endpoints"]
        found = [s for s in services.values() if wanted.items() <= s["metadata"]["labels"].items()]
        (service,) = found
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        assert endpoint["path"] == "/metrics"


def sessions(deployed: Deployed) -> None:
    """All replicas seal with one key, out of one Secret that the kubelet mounts: the program may not read it."""
    (volume,) = [v for v in deployed.pod["volumes"] if v["name"] == "sessions"]
    assert set(volume["secret"]) == {"secretName"}, "required, so no pod begins without it"
    (mount,) = [m for m in deployed.container["volumeMounts"] if m["name"] == "sessions"]
    # A subPath would not follow a rotation.
    assert mount == {"name": "sessions", "mountPath": KEYS, "readOnly": True}
    assert deployed.config["sessions"]["keyFiles"] == [f"{KEYS}/key"]
    for secret in deployed.all("Secret"):
        assert secret["metadata"]["name"] == volume["secret"]["secretName"]
        assert secret["metadata"]["namespace"] == deployed.namespace
        assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
        assert list(secret["data"]) == ["key"] and len(base64.b64decode(key(deployed))) == 32


def key(deployed: Deployed) -> str:
    """What the file of the key holds: what was rendered, or what a user makes."""
    rendered = [base64.b64decode(secret["data"]["key"]).decode() for secret in deployed.all("Secret")]
    return rendered[0] if rendered else base64.b64encode(os.urandom(32)).decode()


def configuration(deployed: Deployed, binary: str) -> None:
    """The mounted file is valid to the program and says what the ports say."""
    container, config, ports = deployed.container, deployed.config, deployed.ports
    assert list(deployed.settings["data"]) == ["config.yaml"]
    (mount,) = [m["mountPath"] for m in container["volumeMounts"] if m["name"] == "config"]
    assert container["args"] == ["run"]
    assert {"name": "KAGENT_PROXY_CONFIG", "value": f"{mount}/config.yaml"} in container["env"]
    listening = [listener["address"].rpartition(":")[2] for listener in config["listeners"]]
    assert listening == [str(port) for name, port in ports.items() if name != "admin"]
    assert config["admin"]["address"].endswith(f":{ports['admin']}")
    # What no other pod may ask is on loopback, so no container port and no Service leads there.
    host, _, port = config["admin"]["local"].rpartition(":")
    assert host == "127.0.0.1" and int(port) not in ports.values(), config["admin"]
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "config.yaml"
        mounted = pathlib.Path(folder) / "key"
        mounted.write_text(key(deployed))
        file.write_text(deployed.file.replace(f"{KEYS}/key", str(mounted)))
        checked = subprocess.run([binary, "check", "--config", file], capture_output=True, text=True, timeout=30)
    # Files of other volumes exist in the pod only; everything else must be right here.
    here = {"config", "sessions"}
    elsewhere = [m["mountPath"] + "/" for m in container["volumeMounts"] if m["name"] not in here]
    faults = [
        line
        for line in (checked.stdout + checked.stderr).splitlines()
        if not ("cannot be read" in line and any(path in line for path in elsewhere))
    ]
    assert checked.returncode == 0 or (elsewhere and not faults), faults


def permissions(deployed: Deployed, namespaces: list[str], secrets: dict, discovers: bool) -> None:
    """Exactly what discovery reads, exactly where, for exactly our ServiceAccount."""
    account = deployed.pod["serviceAccountName"]
    for own in deployed.all("ServiceAccount"):
        assert own["metadata"]["name"] == account
        assert own["automountServiceAccountToken"] is False, "the pod asks for it"
    expected = {}
    if discovers:
        for scope in namespaces or [None]:
            for kind in WATCHED if scope else WATCHED | CLUSTER_ONLY:
                expected[(scope, *kind, None)] = READ
        for scope, names in secrets.items():
            for name in names:
                expected[(scope, "", "secrets", name)] = {"get"}
    assert granted(deployed, account) == expected


def granted(deployed: Deployed, account: str) -> dict[tuple, set[str]]:
    """(namespace or None, group, resource, name or None) to the verbs that are bound to the account."""
    roles = {
        (role["kind"], role["metadata"].get("namespace"), role["metadata"]["name"]): role["rules"]
        for role in deployed.all("ClusterRole") + deployed.all("Role")
    }
    found: dict[tuple, set[str]] = {}
    for binding in deployed.all("ClusterRoleBinding") + deployed.all("RoleBinding"):
        scope = binding["metadata"].get("namespace")
        subject = {"kind": "ServiceAccount", "name": account, "namespace": deployed.namespace}
        assert binding["subjects"] == [subject], binding
        # Popped: a Role that nobody is bound to, or two bindings to one, is a mistake.
        for rule in roles.pop((binding["roleRef"]["kind"], scope, binding["roleRef"]["name"])):
            assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}, rule
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for name in rule.get("resourceNames", [None]):
                        found.setdefault((scope, group, resource, name), set()).update(rule["verbs"])
    assert not roles, roles
    return found
