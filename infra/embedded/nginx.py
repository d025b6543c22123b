"""nginx before the API and the object store, with the configuration of the image."""

from __future__ import annotations

from collections.abc import Mapping

from infra.embedded import probes
from infra.embedded.environment import reachable
from infra.embedded.home import Home
from infra.embedded.orphans import dying_with_parent
from infra.embedded.parts import Layer, Part


def nginx_part(home: Home, environment: Mapping[str, str]) -> Part:
    """The edge, at the address that the environment gives it."""
    folder = home.run / "nginx"
    url = environment["SLUICE_URL"]
    api = (
        environment.get("SLUICE_NGINX_API")
        or f"{reachable(environment['SLUICE_API_HOST'])}:{environment['SLUICE_API_PORT']}"
    )

    def prepare() -> None:
        for needed in (folder, home.path / "mode"):
            needed.mkdir(mode=0o700, exist_ok=True)

    return Part(
        name="nginx",
        layer=Layer.EDGE,
        command=dying_with_parent([str(home.root / "infra" / "nginx" / "entrypoint.sh")]),
        folder=folder,
        probe=probes.http(f"{url}/nginx-health"),
        ports=(int(environment["SLUICE_NGINX_HTTP_PORT"]),),
        address=url,
        environment={"SLUICE_NGINX_API": api},
        depends_on=("api",),
        prepare=prepare,
        # Answers that are being written may end.
        stop_signal="QUIT",
    )
