"""Pods that serve TLS, and the authorities that vouch for them.

Makes objects and certificates; applies nothing and knows no proxy.
"""

import pathlib
import subprocess
import tempfile

MOUNT = "/etc/tls"


def authority(name: str) -> dict[str, str]:
    """A certificate authority of its own, and a certificate by it for `name`: the files of a Secret."""
    with tempfile.TemporaryDirectory() as place:
        folder = pathlib.Path(place)

        def openssl(*arguments: str) -> None:
            done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr

        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *key, "-subj", "/CN=test", "-days", "2", "-keyout", "ca.key", "-out", "ca.crt")
        (folder / "names").write_text(f"subjectAltName=DNS:{name}\nbasicConstraints=CA:FALSE\n")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", "tls.key", "-out", "tls.csr")
        signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
        openssl("x509", "-req", "-in", "tls.csr", *signer, "-out", "tls.crt")
        return {file: (folder / file).read_text() for file in ("ca.crt", "tls.crt", "tls.key")}


def secret(namespace: str, name: str, files: dict[str, str], *keys: str) -> dict:
    """A Secret of these files, or of those named."""
    meta = {"name": name, "namespace": namespace}
    data = {key: files[key] for key in keys or files}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": data}


def served(made: dict, name: str) -> dict:
    """The Deployment, its backend serving TLS on every port with the certificate of the Secret `name`."""
    pod = made["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": "tls", "secret": {"secretName": name}}]
    container = pod["containers"][0]
    container["volumeMounts"] = [{"name": "tls", "mountPath": MOUNT}]
    container["args"] = ["--tls", f"{MOUNT}/tls.crt", f"{MOUNT}/tls.key"]
    container["readinessProbe"]["httpGet"]["scheme"] = "HTTPS"
    return made
