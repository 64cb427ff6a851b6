#!/usr/bin/env python3
"""What nginx takes for the requests of `gate.py`, in instructions: the yardstick beside its numbers. And where they go,
beside ours.

Usage: price.py [--where PATH_OF_KAGENT_PROXY [--functions N] [--httpx]]. Needs valgrind and nginx from apt. nginx
serves in one process under callgrind, many requests and few, as ours does there; once with its own log line, once with
a line like ours and the headers that we add. Its library calls count too, the kernel does not.

With --where it prints the instructions of nginx with our line and headers and of ours in groups, and of each group the
N functions that take most. Needs llvm-symbolizer (llvm from apt), nginx's symbols (`symbols.py` builds them once), and
a program with its line tables: `MORE_FLAGS=-Cstrip=none bash benches/pgo/build.sh`.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import gate  # noqa: E402
import groups  # noqa: E402
import symbols  # noqa: E402
import where  # noqa: E402
from run import apt_binary, free_port  # noqa: E402

OURS = """
      proxy_set_header Via "1.1 nginx"; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
"""
# One line for each address, with what it calls.
OPTIONS = ("--dump-instr=yes", "--compress-pos=no")
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


def serve(post: bytes, requests: int, folder: pathlib.Path, backend: int, line: str, more: str,
          binary: str = "", options: tuple[str, ...] = ()) -> pathlib.Path:
    """What callgrind writes of a whole run of so many requests."""
    port, out = free_port(), folder / f"{requests}.out"
    config = configuration(folder, port, backend, line, more)
    command = ["valgrind", "--tool=callgrind", *options, f"--callgrind-out-file={out}", binary or apt_binary("nginx"),
               "-e", str(folder / "error.log"), "-c", str(config)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    gate.drive(process, port, folder / "error.log", lambda _, post: post, post, requests)
    return out


def whole(out: pathlib.Path) -> int:
    """Instructions of a run."""
    return int(re.search(r"(?m)^(?:summary|totals): (\d+)", out.read_text(errors="replace"))[1])


def price(post: bytes, backend: int, line: str, more: str, binary: str = "") -> int:
    """Instructions of one request."""
    with tempfile.TemporaryDirectory() as folder:
        few, many = (whole(serve(post, each, pathlib.Path(folder), backend, line, more, binary))
                     for each in (gate.FEW, gate.MANY))
    return round((many - few) / (gate.MANY - gate.FEW))


def tables(program: str, name: str, backend: int) -> dict[str, where.Table]:
    """Where the instructions of this request of `gate.POSTS` go: nginx's, ours without reading calls, and ours."""
    post, between, binary = gate.POSTS[name], gate.MANY - gate.FEW, symbols.nginx_with_symbols(apt_binary("nginx"))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        few, many = (where.Run([serve(post, each, folder, backend, "line", OURS, binary, OPTIONS)])
                     for each in (gate.FEW, gate.MANY))
        found["nginx"] = where.Table(binary, many.beyond(few), between, groups.NGINX)
        for title, case in {"ours, calls not read": "blind ", "ours": ""}.items():
            runs = []
            for each in (gate.FEW, gate.MANY):
                out = folder / f"{case}{each}.ours"
                gate.serve(program, case, post, each, out, backend, OPTIONS)
                runs.append(where.Run(gate.threads(out)))
            found[title] = where.Table(program, runs[1].beyond(runs[0]), between, groups.OURS)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--where", metavar="PATH_OF_KAGENT_PROXY")
    arguments.add_argument("--functions", type=int, default=6)
    arguments.add_argument("--httpx", action="store_true")
    asked = arguments.parse_args()
    backend = gate.backend(gate.tool_server)
    if asked.where:
        name = "httpx " if asked.httpx else ""
        print(f"nginx as installed: {price(gate.POSTS[name], backend, 'line', OURS)}, as below with its symbols:")
        where.show(tables(asked.where, name, backend), asked.functions)
        return
    for what, (line, more) in LINES.items():
        for name, post in gate.POSTS.items():
            if name in ("session ", "blind "):
                continue
            print(f"nginx, {what}: {name}instructions {price(post, backend, line, more)}")


if __name__ == "__main__":
    main()
