"""Starts nginx, Envoy and kagent-proxy as people run them, each on a free port of loopback.

nginx is Debian's, Envoy the one that `benches/compare` pins. Knows no check.
"""

import importlib.util
import json
import pathlib
import subprocess
import sys
from types import ModuleType

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "clients"))

from harness import Stage, free_port  # noqa: E402


def _compare() -> ModuleType:
    """benches/compare/run.py, which knows where the others come from."""
    spec = importlib.util.spec_from_file_location("compare", ROOT / "benches" / "compare" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMPARE = _compare()
envoy_binary = COMPARE.envoy_binary

KIND = "type.googleapis.com/envoy.extensions"


# === kagent-proxy ===


def ours(stage: Stage, config: str) -> int:
    """With this configuration, in which PORT and ADMIN are free ports. Returns the former."""
    return ours_with_admin(stage, config)[0]


def ours_with_admin(stage: Stage, config: str) -> tuple[int, int, subprocess.Popen]:
    port, admin = free_port(), free_port()
    file = stage.folder / f"proxy-{port}.yaml"
    text = f"""
admin: {{address: "127.0.0.1:{admin}"}}
drain: {{lag: 0s, deadline: 1s}}
"""
    if "listeners:" not in config:
        text += 'listeners: [{name: http, address: "127.0.0.1:PORT"}]\n'
    file.write_text((text + config).replace("PORT", str(port)))
    process = stage.start(f"proxy-{port}", [stage.program, "run", "--config", file], port)
    return port, admin, process


def to(host: str, target: str, more: str = "") -> str:
    return f"- {{match: {host}, targets: ['{target}']{more}}}\n"


# === nginx ===


def nginx(stage: Stage, to_port: int, more: str = "", before: str = "") -> int:
    """With nothing but `proxy_pass`, with `more` in its location, and `before` before its server."""
    port = free_port()
    folder = stage.folder / f"nginx-{port}"
    folder.mkdir()
    folder.chmod(0o777)
    stage.folder.chmod(0o755)
    temp = "".join(f"{kind}_temp_path {folder}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    file = folder / "nginx.conf"
    # Its body limit of 1 MiB is the one default that no agent can live with.
    file.write_text(f"""
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log {folder}/access.log;
  client_max_body_size 16m;
  {temp}
  {before}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{to_port}; {more} }}
  }}
}}
""")
    command = [COMPARE.apt_binary("nginx"), "-e", folder / "error.log", "-c", file]
    stage.start(f"nginx-{port}", command, port)
    return port


# What docs/operations.md tells people to write.
NGINX_AS_DOCUMENTED = """
  proxy_http_version 1.1; proxy_set_header Connection $connection_upgrade; proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Host $http_host; proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h;
"""
NGINX_MAP = "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }"


# === Envoy ===


def _address(port: int, host: str = "127.0.0.1") -> dict:
    return {"socket_address": {"address": host, "port_value": port}}


def envoy_config(
    host: str, port: int, to_port: int, admin: int, http2: bool = False, retries: int = 0, connect: bool = False
) -> dict:
    """On this address, in front of a port of loopback. See `envoy`."""
    route: dict = {"cluster": "next", "timeout": "0s"}
    match: dict = {"prefix": "/"}
    options: dict = {"upgrade_configs": [{"upgrade_type": "websocket"}]}
    if connect:
        route |= {"upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}
        match, options = {"connect_matcher": {}}, {"upgrade_configs": [{"upgrade_type": "CONNECT"}]}
    if retries:
        route["retry_policy"] = {"retry_on": "5xx", "num_retries": retries}
    manager = {
        "@type": f"{KIND}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "stream_idle_timeout": "0s",
        "http_protocol_options": {"accept_http_10": True, "enable_trailers": True},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{KIND}.filters.http.router.v3.Router"},
        }],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": match, "route": route},
        ]}]},
        **options,
    }
    protocol = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {"enable_trailers": True}}
    cluster = {
        "name": "next",
        "connect_timeout": "2s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": _address(to_port)}},
        ]}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{KIND}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": protocol,
        }},
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {
            "listeners": [{"address": _address(port, host), "filter_chains": [{"filters": filters}]}],
            "clusters": [cluster],
        },
    }


def envoy(stage: Stage, to_port: int, http2: bool = False, retries: int = 0, connect: bool = False) -> int:
    """In front of a port, toward which it speaks HTTP/1.1 or HTTP/2 in plain text; for clients of both. With
    `connect` it is a forward proxy that ends CONNECT and tunnels to the port."""
    port, admin = free_port(), free_port()
    file = stage.folder / f"envoy-{port}.json"
    file.write_text(json.dumps(envoy_config("127.0.0.1", port, to_port, admin, http2, retries, connect)))
    options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    stage.start(f"envoy-{port}", [envoy_binary(), "-c", file, *options], port)
    return port
