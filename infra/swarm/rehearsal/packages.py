"""The machine's own pip configuration, in a form that a build can use: local folders are served over loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

_MULTIPLE: Final = ("extra-index-url", "find-links", "trusted-host")
_KEPT: Final = ("index-url", *_MULTIPLE, "timeout", "proxy")
_CERTIFICATE_IN_BUILD: Final = "/run/secrets/ca_certificate"


@contextmanager
def build_secrets(home: Path) -> Iterator[list[str]]:
    """Arguments of `docker build` that hand it pip's configuration and CA; nothing of them stays in an image."""
    roots: list[Path] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Folders, roots))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = _configuration()
        lines = ["[global]"]
        for name in _KEPT:
            values = [_reachable(each, roots, server.server_port) for each in found.get(name, [])]
            if values:
                lines.append(f"{name} = " + "\n    ".join(values))
        if roots and "trusted-host" not in found:
            lines.append("trusted-host = 127.0.0.1")
        configuration, certificate = home / "pip.conf", home / "ca.pem"
        cert = found.get("cert", [os.environ.get("PIP_CERT", "")])[0]
        if cert:
            lines.append(f"cert = {_CERTIFICATE_IN_BUILD}")
        certificate.write_bytes(Path(cert).read_bytes() if cert else b"")
        configuration.write_text("\n".join(lines) + "\n")
        yield [
            "--secret", f"id=pip_configuration,src={configuration}",
            "--secret", f"id=ca_certificate,src={certificate}",
        ]  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()


def _configuration() -> dict[str, list[str]]:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        # pip prints Python literals; the environment comes last, and wins over its files except for what adds up.
        values = value.strip("'\"").replace("\\n", " ").split()
        found[name] = [*found.get(name, []), *values] if name in _MULTIPLE else values
    return {name: list(dict.fromkeys(values)) for name, values in found.items()}


def _reachable(value: str, roots: list[Path], port: int) -> str:
    path = Path(unquote(urlsplit(value).path)) if value.startswith("file:") else Path(value)
    if not value.startswith(("file:", "/")) or not path.is_dir():
        return value
    # The pages of an index link to files beside it: `../../files/x.whl`.
    roots.append(path.resolve().parent if value.startswith("file:") else path.resolve())
    return f"http://127.0.0.1:{port}{quote(str(path))}/"


class _Folders(SimpleHTTPRequestHandler):
    """Serves files of some folders at the paths that they have on this machine."""

    def __init__(self, roots: list[Path], *arguments: Any, **options: Any) -> None:
        self._roots = roots
        super().__init__(*arguments, **options)

    def translate_path(self, path: str) -> str:
        """The file behind a URL; one outside of the folders does not exist."""
        wanted = Path(unquote(urlsplit(path).path)).resolve()
        return str(wanted) if any(wanted.is_relative_to(root) for root in self._roots) else "/nonexistent"

    def log_message(self, *_: object) -> None:
        """Say nothing."""
