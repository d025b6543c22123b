"""`python -m infra.embedded up|down|status|start|stop|restart|env`: what the Makefile calls."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

from infra.embedded.failures import PlatformError
from infra.embedded.home import HOME_VARIABLE
from infra.embedded.platform import PartStatus, Platform

ROOT = Path(__file__).parents[2]
_INTERRUPTED = 130


def main() -> int:
    """Carry out one command; 1 with a sentence where that is not possible."""
    chosen = _arguments().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    home = Path(os.environ.get(HOME_VARIABLE) or ROOT / ".sluice")
    try:
        platform = Platform(home if home.is_absolute() else ROOT / home, ROOT, report=_say)
        _carry_out(platform, chosen)
    except PlatformError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.embedded", description="The platform without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything; no error if it is up")
    up.add_argument("--foreground", action="store_true", help="stay, and stop everything on Ctrl-C")
    up.add_argument("--only-stores", action="store_true", help="PostgreSQL, Redis, RabbitMQ, S3 and Qdrant only")
    commands.add_parser("down", help="stop everything; no error if it is down")
    commands.add_parser("status", help="every part with its state, memory and address").add_argument(
        "--json", action="store_true"
    )
    commands.add_parser("env", help="print the SLUICE_* variables of the services")
    for command in ("start", "stop", "restart"):
        commands.add_parser(command, help=f"{command} one part").add_argument("part")
    return parser


def _carry_out(platform: Platform, chosen: argparse.Namespace) -> None:
    match chosen.command:
        case "up":
            _up(platform, only_stores=chosen.only_stores, foreground=chosen.foreground)
        case "down":
            platform.down()
            _say("The platform is down; its data is kept.")
        case "status":
            _show(platform.status(), as_json=chosen.json)
        case "env":
            sys.stdout.write("".join(f"{name}={value}\n" for name, value in sorted(platform.environment().items())))
        case "start":
            platform.start(chosen.part)
        case "stop":
            platform.stop(chosen.part)
        case "restart":
            platform.restart(chosen.part)


def _up(platform: Platform, *, only_stores: bool, foreground: bool) -> None:
    if not platform.up(only_stores=only_stores):
        _say("The platform is up already.")
    if not only_stores:
        _say(f"Sluice: {platform.environment()['SLUICE_URL']}")
    if foreground:
        platform.stay("Press Ctrl-C to stop everything.")


def _show(parts: list[PartStatus], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps([asdict(part) for part in parts], indent=1) + "\n")
        return
    for part in parts:
        memory = f"{part.rss_bytes / 1e6:7.0f} MB" if part.pids else " " * 10
        pid = str(part.pids[0]) if part.pids else "-"
        line = f"{part.name:<12} {part.state:<9} {pid:>8} {memory} {part.uptime_seconds:7} s  {part.address}"
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{'in all':<31} {sum(part.rss_bytes for part in parts) / 1e6:7.0f} MB\n")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
