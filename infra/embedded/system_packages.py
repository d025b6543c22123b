"""Programs that come from Debian packages: `python -m infra.embedded.system_packages rabbitmq-server nginx`.

Installs what is missing as root or through passwordless sudo; otherwise says in one sentence what to install.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from infra.embedded.failures import PartMissingError

# A file that is there when the package is.
PROGRAMS: Final = {
    "debootstrap": Path("/usr/sbin/debootstrap"),
    "docker.io": Path("/usr/sbin/dockerd"),
    "rabbitmq-server": Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
    "nginx-light": Path("/usr/sbin/nginx"),
    "gettext-base": Path("/usr/bin/envsubst"),
    "tesseract-ocr": Path("/usr/bin/tesseract"),
    "tesseract-ocr-rus": Path("/usr/share/tesseract-ocr/5/tessdata/rus.traineddata"),
}

# Debian starts a service as soon as it is installed, and again at boot. Ours is another one, so both are prevented:
# exit code 101 of policy-rc.d means "not allowed".
_INSTALL: Final = r"""
set -eu
policy=/usr/sbin/policy-rc.d
if [ -e "$policy" ]; then mv "$policy" "$policy.before-sluice"; fi
restore() { rm -f "$policy"; if [ -e "$policy.before-sluice" ]; then mv "$policy.before-sluice" "$policy"; fi; }
trap restore EXIT
printf '#!/bin/sh\nexit 101\n' > "$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
apt-get update -q || echo "apt-get update failed; trying with the lists that are there"
apt-get install -y -q --no-install-recommends "$@"
if [ -d /run/systemd/system ]; then
    for package in "$@"; do systemctl disable --quiet "$package" 2>/dev/null || true; done
fi
"""


def missing(packages: Sequence[str]) -> list[str]:
    """Those of the packages whose program is not there."""
    return [package for package in packages if not PROGRAMS[package].exists()]


def ensure(packages: Sequence[str], log: Path) -> None:
    """Install the missing packages, output in `log`; where that cannot be, `PartMissingError` says what to do."""
    wanted = missing(packages)
    if not wanted:
        return
    advice = f"Install it: apt-get install --no-install-recommends {' '.join(wanted)}"
    if shutil.which("apt-get") is None:
        raise PartMissingError(
            f"{', '.join(wanted)} is missing and this machine has no apt-get. {advice} (Debian's names)."
        )
    as_root = _as_root()
    if as_root is None:
        raise PartMissingError(
            f"{', '.join(wanted)} is missing, and installing it needs root or passwordless sudo. {advice}"
        )
    with log.open("ab") as output:
        installed = subprocess.run(
            [*as_root, "/bin/sh", "-c", _INSTALL, "install", *wanted],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if installed.returncode != 0 or missing(packages):
        last_lines = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise PartMissingError(f"Installing {', '.join(wanted)} failed. {advice}\n{last_lines}")


def _as_root() -> list[str] | None:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0:
        return [sudo, "-n"]
    return None


def main() -> int:
    """Install the packages named on the command line; 1 with a sentence where that is not possible."""
    parser = argparse.ArgumentParser(prog="system_packages", description=__doc__)
    parser.add_argument("packages", nargs="+", choices=sorted(PROGRAMS))
    parser.add_argument("--log", type=Path, default=Path("/dev/stderr"))
    chosen = parser.parse_args()
    try:
        ensure(chosen.packages, chosen.log)
    except PartMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
