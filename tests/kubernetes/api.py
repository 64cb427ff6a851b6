"""A small client of the Kubernetes API: JSON over TLS, discovery of kinds, server-side apply, watches.

It knows no kind by itself but asks the server. It retries only what is safe to send twice; callers that must
live through an outage use `patiently`.
"""

import http.client
import json
import ssl
import threading
import time
import urllib.parse

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
LOST = (ConnectionError, http.client.HTTPException, TimeoutError, ssl.SSLError, OSError)


class ApiError(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason = code, reason


class Api:
    """One identity at one API server; safe for threads, each has a connection of its own."""

    def __init__(self, host: str, port: int, token: str, authority: str) -> None:
        self.host, self.port, self.token = host, port, token
        self.tls = ssl.create_default_context(cafile=authority)
        self.local = threading.local()
        self.kinds: dict[tuple[str, str], dict] = {}

    def connection(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self.host, self.port, context=self.tls, timeout=timeout)

    def request(self, method: str, path: str, body=None, kind: str = "application/json") -> dict:
        """The parsed answer; a lost connection is tried once more where that is safe."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        for last in (False, True):
            held = getattr(self.local, "connection", None)
            fresh = held is None
            self.local.connection = None
            connection = held or self.connection(30)
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                text = answer.read()
            except LOST:
                connection.close()
                if last or fresh or method == "POST":
                    raise
                continue
            self.local.connection = connection
            break
        if answer.status >= 300:
            raise failure(answer.status, text)
        return json.loads(text) if answer.headers.get_content_type() == "application/json" else {"text": text.decode()}

    def resource(self, version: str, kind: str) -> dict:
        if (version, kind) not in self.kinds:
            base = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for entry in self.request("GET", base)["resources"]:
                if "/" not in entry["name"]:
                    self.kinds[version, entry["kind"]] = {"base": base, **entry}
        if (version, kind) not in self.kinds:
            raise ApiError(404, "NotFound", f"the server has no {kind} in {version}")
        return self.kinds[version, kind]

    def path(self, version: str, kind: str, namespace: str | None = None, name: str = "", sub: str = "") -> str:
        found = self.resource(version, kind)
        middle = f"/namespaces/{namespace}" if found["namespaced"] and namespace else ""
        return found["base"] + middle + f"/{found['name']}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")

    def of(self, thing: dict, sub: str = "") -> str:
        """The path of an object."""
        meta = thing["metadata"]
        return self.path(thing["apiVersion"], thing["kind"], meta.get("namespace"), meta["name"], sub)

    def get(self, version: str, kind: str, namespace: str | None, name: str) -> dict:
        return self.request("GET", self.path(version, kind, namespace, name))

    def list(self, version: str, kind: str, namespace: str | None = None, labels: str = "") -> list[dict]:
        query = "?" + urllib.parse.urlencode({"labelSelector": labels}) if labels else ""
        return self.request("GET", self.path(version, kind, namespace) + query)["items"]

    def apply(self, thing: dict) -> dict:
        """Server-side apply, which large custom resource definitions need."""
        return self.request("PATCH", self.of(thing) + "?fieldManager=test&force=true", thing, APPLY)

    def patch(self, thing: dict, change: dict, sub: str = "") -> dict:
        return self.request("PATCH", self.of(thing, sub), change, MERGE)

    def delete(self, thing: dict, **options) -> None:
        try:
            self.request("DELETE", self.of(thing), {"kind": "DeleteOptions", "apiVersion": "v1", **options})
        except ApiError as error:
            if error.code != 404:
                raise

    def watch(self, path: str, version: str, stop: threading.Event):
        """(type, object) until the server ends the stream, which it does by itself now and then."""
        query = urllib.parse.urlencode({"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"})
        connection = self.connection(60)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            connection.request("GET", f"{path}?{query}&timeoutSeconds=50", headers=headers)
            answer = connection.getresponse()
            if answer.status >= 300:
                raise failure(answer.status, answer.read())
            while not stop.is_set() and (line := answer.readline()):
                event = json.loads(line)
                yield event["type"], event["object"]
        finally:
            connection.close()


def failure(status: int, text: bytes) -> ApiError:
    try:
        said = json.loads(text)
        return ApiError(status, said.get("reason", ""), said.get("message", ""))
    except ValueError:
        return ApiError(status, "", text[:300].decode(errors="replace"))


def patiently(call, stop: threading.Event, also: tuple[int, ...] = ()):
    """The result of `call`, tried until the server answers; codes of `also` count as not yet."""
    while True:
        try:
            return call()
        except ApiError as error:
            if error.code < 500 and error.code not in (429, *also):
                raise
        except LOST:
            pass
        if stop.wait(0.1):
            raise InterruptedError("the run ends")


def until(condition, seconds: float, what) -> object:
    """The first true value of `condition`, asked again and again; `what` may be a call that says how it stands."""
    end = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
            fault = ""
        except (ApiError, *LOST) as error:
            fault = f" ({error})"
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds} s not yet: {what() if callable(what) else what}{fault}")
        time.sleep(0.05)
