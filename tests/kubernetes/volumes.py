"""What a kubelet writes for a pod: its volumes as folders, and its containers' environment.

Reads ConfigMaps, Secrets, Services and service account tokens through the API as the admin. Volumes: configMap,
secret, emptyDir and projected ones with serviceAccountToken, configMap, secret and downwardAPI.
"""

import base64
import pathlib
import re

from api import Api, ApiError


class Unsupported(Exception):
    """A part of a pod's specification that this kubelet does not know."""


def field(pod: dict, path: str, addresses: tuple[str, str]) -> str:
    """A field of the downward API."""
    meta, spec = pod["metadata"], pod["spec"]
    known = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta["namespace"],
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": addresses[0],
        "status.podIPs": ",".join(addresses),
        "status.hostIP": addresses[0],
    }
    if path in known:
        return known[path]
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return meta.get(found[1], {}).get(found[2], "")
    raise Unsupported(f"fieldPath {path}")


def keys(api: Api, kind: str, namespace: str, source: dict) -> dict[str, bytes]:
    """The files of a ConfigMap or Secret, by name."""
    name = source.get("name") or source["secretName"]
    try:
        found = api.get("v1", kind, namespace, name)
    except ApiError as error:
        if error.code == 404 and source.get("optional"):
            return {}
        raise
    data = found.get("data") or {}
    files = {k: base64.b64decode(v) if kind == "Secret" else v.encode() for k, v in data.items()}
    if "items" in source:
        return {item["path"]: files[item["key"]] for item in source["items"]}
    return files


def token(api: Api, pod: dict, source: dict) -> bytes:
    """A real token of the pod's service account, from the TokenRequest API."""
    meta = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    spec = {"expirationSeconds": max(600, source.get("expirationSeconds", 3600)), "boundObjectRef": bound}
    if source.get("audience"):
        spec["audiences"] = [source["audience"]]
    account = pod["spec"]["serviceAccountName"]
    path = api.path("v1", "ServiceAccount", meta["namespace"], account, "token")
    wish = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return api.request("POST", path, wish)["status"]["token"].encode()


def files(api: Api, pod: dict, volume: dict, addresses: tuple[str, str]) -> dict[str, bytes]:
    namespace = pod["metadata"]["namespace"]
    if "configMap" in volume:
        return keys(api, "ConfigMap", namespace, volume["configMap"])
    if "secret" in volume:
        return keys(api, "Secret", namespace, volume["secret"])
    if "emptyDir" in volume:
        return {}
    if "projected" not in volume:
        raise Unsupported(f"volume {volume}")
    made: dict[str, bytes] = {}
    for source in volume["projected"]["sources"]:
        if "serviceAccountToken" in source:
            made[source["serviceAccountToken"]["path"]] = token(api, pod, source["serviceAccountToken"])
        elif "configMap" in source:
            made |= keys(api, "ConfigMap", namespace, source["configMap"])
        elif "secret" in source:
            made |= keys(api, "Secret", namespace, source["secret"])
        elif "downwardAPI" in source:
            for item in source["downwardAPI"]["items"]:
                made[item["path"]] = field(pod, item["fieldRef"]["fieldPath"], addresses).encode()
        else:
            raise Unsupported(f"projected {source}")
    return made


def write(api: Api, pod: dict, folder: pathlib.Path, addresses: tuple[str, str]) -> dict[str, pathlib.Path]:
    """Each volume's folder, filled."""
    made = {}
    for volume in pod["spec"].get("volumes", []):
        place = made[volume["name"]] = folder / volume["name"]
        place.mkdir(parents=True, exist_ok=True)
        # Pods run as users of their own.
        place.chmod(0o777 if "emptyDir" in volume else 0o755)
        for name, content in files(api, pod, volume, addresses).items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    return made


def environment(api: Api, pod: dict, container: dict, addresses: tuple[str, str]) -> dict[str, str]:
    """The container's own variables, over what Services inject."""
    namespace = pod["metadata"]["namespace"]
    made = {"HOSTNAME": pod["metadata"]["name"], "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    if pod["spec"].get("enableServiceLinks", True):
        made |= links(api, namespace)
    own: dict[str, str] = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom")
        if source is None:
            value = re.sub(r"\$\((\w+)\)", lambda m: own.get(m[1], m[0]), entry.get("value", ""))
        elif "fieldRef" in source:
            value = field(pod, source["fieldRef"]["fieldPath"], addresses)
        elif "configMapKeyRef" in source or "secretKeyRef" in source:
            kind = "ConfigMap" if "configMapKeyRef" in source else "Secret"
            wanted = source.get("configMapKeyRef") or source["secretKeyRef"]
            found = keys(api, kind, namespace, wanted)
            if wanted["key"] not in found:
                continue
            value = found[wanted["key"]].decode()
        else:
            raise Unsupported(f"env {entry}")
        own[entry["name"]] = value
    return made | own


def links(api: Api, namespace: str) -> dict[str, str]:
    """The variables that a kubelet sets for the Services of a namespace."""
    made = {}
    for service in api.list("v1", "Service", namespace):
        address, ports = service["spec"].get("clusterIP"), service["spec"].get("ports", [])
        if not address or address == "None" or not ports:
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        made[f"{name}_SERVICE_HOST"] = address
        made[f"{name}_SERVICE_PORT"] = str(ports[0]["port"])
        made[f"{name}_PORT"] = f"tcp://{address}:{ports[0]['port']}"
    return made
