"""What a function of a proxy is for, by its name and by the file that it stands in: the groups of `price.py --where`.

Tables only. A function is looked for from the top of its list; those that nothing here names belong to whoever has them
inlined, and where nobody has, to the rest. Those of `SHARED` belong to their callers.
"""

import re

READ_REQUEST = "reading the request's head"
WAY = "finding the way and a connection"
WRITE_REQUEST = "writing the request's head"
BODY = "the request's body"
READ_RESPONSE = "reading the response's head"
RESPONSE = "passing the response on"
LOG = "access log"
METRICS = "metrics"
CALLS = "reading calls"
SOCKETS = "sockets: reads and writes"
LOOP = "events, tasks and timers"
CLOCK = "clock"
MEMORY = "memory"
LIFE = "a request's course, its client's connection"
OTHER = "the rest"
ORDER = [READ_REQUEST, WAY, WRITE_REQUEST, BODY, READ_RESPONSE, RESPONSE, LOG, METRICS, CALLS, LIFE, SOCKETS, LOOP,
         CLOCK, MEMORY, OTHER]


class Rules:
    """The groups of one program's functions."""

    def __init__(self, shared: list[str], rules: list[tuple[str, list[str]]]) -> None:
        self.shared = re.compile("|".join(shared))
        self.rules = [(group, re.compile("|".join(patterns))) for group, patterns in rules]

    def is_shared(self, function: str) -> bool:
        return bool(self.shared.search(function))

    def group(self, frames: list[str]) -> tuple[str, str]:
        """The group and the name of the first of these that a rule knows, innermost first."""
        names = [short(frame) for frame in frames]
        for name in names:
            for group, pattern in self.rules:
                if pattern.search(name):
                    return group, name
        return OTHER, names[-1]


def short(frame: str) -> str:
    """A function by its own name and, of Rust, by the file before it: closures have no other name."""
    name, _, file = frame.rpartition(" ")
    if not file.endswith(".rs"):
        return name or frame
    name = re.sub(r"::h[0-9a-f]{16}$", "", name).replace("_$u7b$$u7b$", "{")
    while (shorter := re.sub(r"<[^<>]*>", "", name)) != name:
        name = shorter
    parts = [part for part in name.split("::") if part and not part.startswith(("{", "_$LT$"))]
    place = re.sub(r"^.*/(?:registry/src/[^/]+/|library/)([\w-]+?)(?:-\d[^/]*)?/src/|^.*/src/", r"\1/", file)
    return f"{place.removeprefix('/').removesuffix('.rs')} {parts[-1] if parts else 'closure'}"


COPIES = [r"^(__)?(mem(cpy|move|r?chr|b?cmp)|strn?(len|cmp))\b"]

NGINX = Rules(
    shared=COPIES + [
        r"^ngx_(v?s[ln]?n?printf|sprintf_|vslprintf|hash_find|hash_strlow|strn?casecmp|strstrn|str(l)?casestrn)",
        r"^ngx_ato",
        r"^ngx_(list_push|array_push|array_create|memn2cmp|cpystrn|filename_cmp|escape_json|chain_|alloc_chain_link)",
        r"^ngx_http_(get_(indexed|flushed)?_?variable|variable_|script_|complex_value|map_)",
        r"^ngx_http_parse_header_line", r"^ngx_(create_temp_buf|chain_get_free_buf)",
        r"^ngx_http_proxy_(internal_|host_variable|add_x)",
        r"^ngx_http_upstream_(response_(time|length)|addr|status)_variable",
    ],
    rules=[
        (MEMORY, [r"^ngx_(p|pn|pc)alloc", r"^ngx_palloc_", r"^ngx_(mem|c)?alloc", r"^ngx_memalign", r"^ngx_pfree",
                  r"^ngx_(create|destroy|reset)_pool", r"^_int_(malloc|free|memalign)",
                  r"^(malloc|calloc|free|realloc)$",
                  r"^(posix_memalign|_mid_memalign)", r"^unlink_chunk", r"^malloc_consolidate", r"^(__)?memset"]),
        (LOG, [r"^ngx_http_log_", r"^ngx_escape_json"]),
        (SOCKETS, [r"^ngx_(unix_|linux_sendfile|output_chain_to_iovec|writev|readv|chain_writer|tcp_|send_lowat)",
                   r"^(__)?(recv|recvfrom|writev|send|sendfile|getsockopt|setsockopt|ioctl|write|read|close)(64)?$"]),
        (CLOCK, [r"^ngx_(time_|gmtime|monotonic|timezone|localtime)", r"^(clock_gettime|gettimeofday|__gettimeofday)"]),
        (LOOP, [r"^ngx_(epoll_|process_events|event_(process|expire|find|cancel|no_timers)|rbtree_|handle_)",
                r"^ngx_(single_process|post_event|delete_posted)", r"^epoll_wait", r"^__errno_location"]),
        (READ_RESPONSE, [r"^ngx_http_proxy_process_(header|status_line)", r"^ngx_http_parse_status_line",
                         r"^ngx_http_upstream_(process_header|process_headers|copy_|process_content|process_.*_header)",
                         r"^ngx_http_upstream_(process_(connection|transfer|set_cookie)|ignore_)"]),
        (READ_REQUEST, [r"^ngx_http_(parse_|process_request|process_(unique_)?header_line|process_host|process_user)",
                        r"^ngx_http_(process_|validate_host|(set|find)_virtual_server|read_request_header)"]),
        (WRITE_REQUEST, [r"^ngx_http_proxy_(create_request|set_)", r"^ngx_http_upstream_(send_request|set_)"]),
        (BODY, [r"^ngx_http_(request_body|read_client_request_body|read_unbuffered|do_read_client|test_expect|save_)"]),
        (WAY, [r"^ngx_http_core_(?!content_handler)", r"^ngx_http_(update_location|handler\b|proxy_handler|proxy_eval)",
               r"^ngx_http_(realip|rewrite|limit_|access|auth_|try_files|mirror|index|static|autoindex)\w*handler",
               r"^ngx_(parse_url|parse_inet|inet_|event_connect_peer|get_connection)",
               r"^ngx_http_upstream_(init|connect|get_|create|keepalive|free_|test_connect|save|check_broken|resolve)",
               r"^ngx_http_upstream_(init_(keepalive|round)|notify|wr_check|rd_check)"]),
        (RESPONSE, [r"^ngx_http_\w*(header|body|copy|write|postpone|trailers|userid|headers)_?filter",
                    r"^ngx_output_chain",
                    r"^ngx_http_(send_|output_filter)", r"^ngx_http_proxy_(non_buffered|input_filter)",
                    r"^ngx_http_upstream_(process_non_buffered|non_buffered|send_response|process_upgraded)"]),
        (LIFE, [r"^ngx_http_(finalize|free_request|close_request|create_request|alloc_request|keepalive_handler)",
                r"^ngx_http_(set_keepalive|post|run_posted|log_request|request_|cleanup|init_request)",
                r"^ngx_http_(proxy_finalize|upstream_finalize|upstream_cleanup|upstream_handler|wait_request)",
                r"^ngx_(reusable_connection|close_connection|free_connection|free_chain)"]),
    ],
)

OURS = Rules(
    shared=COPIES + [r"^<?(http::(header|uri|method)|bytes|core|alloc|std|hashbrown|httparse|memchr|arc_swap)::",
                     r"^_\$LT\$(http|bytes|core|alloc|std|hashbrown|httparse|arc_swap)\.\."],
    rules=[
        (MEMORY, [r"^_rjem_", r"^(malloc|free|calloc|realloc|sdallocx|mallocx|memset)$", r"^tikv-jemallocator/",
                  r"^__r(ust|g)_(alloc|dealloc|realloc)", r"^(tcache|arena|edata|bin|je|sz|te|tsd|cache_bin|thread_)_",
                  r"^(i?malloc|free|imalloc|isdalloc|ifree|atomic|util|bit|pa|extent|rtree|emap|ticker)_\w+$"]),
        (CLOCK, [r"^(__)?clock_gettime", r"^std/sys/(pal/unix/)?time", r"^(std|core)/time",
                 r"^tokio/time/(clock|instant)"]),
        (METRICS, [r"^telemetry/(metrics|family|histogram|of_route|operations|series|streams|names|peers|tools)"]),
        (LOG, [r"^telemetry/(access_log|log|record|text)", r"^proxy/record", r"^humantime/", r"^tracing"]),
        (CALLS, [r"^protocol/", r"^proxy/(posted|sight|call)", r"^sight", r"^telemetry/feed"]),
        (READ_RESPONSE, [r"^upstream/h1/(head|download|body)", r"^upstream/(framing|faults)", r"^headers/noted"]),
        (WRITE_REQUEST, [r"^upstream/h1/encode", r"^headers/onward", r"^proxy/request/address"]),
        (BODY, [r"^body", r"^upstream/h1/upload", r"^hyper/body/"]),
        (SOCKETS, [r"^upstream/h1/(io|aside)", r"^socket", r"^listener/watched", r"^socket2/", r"^tokio/(net|io)/",
                   r"^mio/net", r"^mio/io", r"^hyper-util/rt", r"^__pthread_\w+_asynccancel",
                   r"^(__)?(libc_)?(recv|recvfrom|writev|send|write|read|close|readv)(64)?$"]),
        (WAY, [r"^(route|static_routes|upstream|config|proxy/(send|routes|way|limiter|control))\b", r"^arc-swap/"]),
        (READ_REQUEST, [r"^proxy/request", r"^(headers|authority|plain_path|telemetry/trace)", r"^hyper/headers",
                        r"^hyper/proto/h1/role (parse|record_header)", r"^httparse/"]),
        (RESPONSE, [r"^(proxy/reply|rewrite)", r"^hyper/proto/h1/(encode|role)"]),
        (LIFE, [r"^(proxy|listener|lib|app)\b(?!/(activity|quiet))", r"^futures-util/", r"^hyper/"]),
        (LOOP, [r"^(tokio|tokio-util|mio|atomic-waker|want)/", r"^(__)?epoll_wait", r"^(listener/|workers|drain)"]),
    ],
)
