"""Objects of kagent 1.0 (`api.kagent.dev`), as scenarios need them. Knows no scenario."""

PROXY = "http://kagent-proxy.kagent.svc:8080/mcp"
API = "api.kagent.dev/v1alpha3"
KINDS = ("agents", "agenttemplates", "remotemcpservers")
SPACE = "newer"


def of_1_0(kind: str, name: str, spec: dict, space: str = SPACE) -> dict:
    if kind == "Agent":
        spec = {"harness": {"ref": {"name": "harness"}}} | spec
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": space}, "spec": spec}


def opted(name: str, target: str, space: str = SPACE, **spec) -> dict:
    """A tool server that goes through the proxy."""
    header = {"name": "x-kagent-host", "value": target}
    return of_1_0("RemoteMCPServer", name, {"description": "d", "url": PROXY, "headersFrom": [header], **spec}, space)


def binding(server: str, *tools: str) -> dict:
    return {"mcp": {"server": {"kind": "RemoteMCPServer", "name": server}, "tools": list(tools)}}
