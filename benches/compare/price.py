#!/usr/bin/env python3
"""What nginx takes for the requests of `gate.py`, in instructions: the yardstick beside its numbers.

Usage: price.py. Needs valgrind and nginx from apt. nginx serves in one process under callgrind, many requests and
few, as ours does there; once with its own log line, once with a line like ours and the headers that we add. Its
library calls count too, the kernel does not. Asks nothing of kagent-proxy.
"""

import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import gate  # noqa: E402
from run import apt_binary, free_port  # noqa: E402

OURS = """
      proxy_set_header Via "1.1 nginx"; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
"""
LINES = {"its own line": ("combined", ""), "a JSON line and our headers": ("line", OURS)}


def configuration(folder: pathlib.Path, port: int, backend: int, line: str, more: str) -> pathlib.Path:
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off; master_process off; user root; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  log_format line escape=json '{{"timestamp":"$time_iso8601","level":"INFO","target":"access",'
    '"peer":"$remote_addr:$remote_port","method":"$request_method","path":"$request_uri",'
    '"host":"$http_x_kagent_host","route":"$backend","traceparent":"$http_traceparent","status":$status,'
    '"bytes":$body_bytes_sent,"request_bytes":$request_length,"connect":"$upstream_connect_time",'
    '"headers":"$upstream_header_time","whole":$request_time}}';
  access_log {folder}/access.log {line} buffer=64k flush=1s;
  client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  keepalive_requests 100000000;
  map $http_x_kagent_host $backend {{ default ""; tools.team-a tools; }}
  upstream tools {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://$backend; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 1h; {more}
    }}
  }}
}}
""")
    return config


def serve(post: bytes, requests: int, folder: pathlib.Path, backend: int, line: str, more: str) -> int:
    """Instructions of a whole run of so many requests."""
    port, out = free_port(), folder / f"{requests}.out"
    config = configuration(folder, port, backend, line, more)
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", apt_binary("nginx"),
               "-e", str(folder / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gate.drive(process, port, folder / "error.log", lambda _, post: post, post, requests)
    return int(re.search(r"(?m)^(?:summary|totals): (\d+)", out.read_text(errors="replace"))[1])


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=gate.backend, args=(listener,), daemon=True).start()
    for what, (line, more) in LINES.items():
        for name, post in gate.POSTS.items():
            if name == "session ":
                continue
            with tempfile.TemporaryDirectory() as folder:
                few, many = (serve(post, each, pathlib.Path(folder), listener.getsockname()[1], line, more)
                             for each in (gate.FEW, gate.MANY))
            print(f"nginx, {what}: {name}instructions {round((many - few) / (gate.MANY - gate.FEW))}")


if __name__ == "__main__":
    main()
