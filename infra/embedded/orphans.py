"""Processes that end with the one that started them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def dying_with_parent(command: Sequence[str], signal: str = "TERM") -> list[str]:
    """The command, so that the kernel sends it this signal when its parent is gone, even by SIGKILL.

    Needs `setpriv` of util-linux, which Debian always has; elsewhere the command stays as it is and leftovers are found
    by `down`.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal, "--", *command] if setpriv else list(command)
