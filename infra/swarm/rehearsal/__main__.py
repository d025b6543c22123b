"""Rehearse a deployment: `python -m infra.swarm.rehearsal [--keep]`, as root on Debian 12."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from infra.swarm.docker import DeployError
from infra.swarm.rehearsal import experiments
from infra.swarm.rehearsal.engine import engine
from infra.swarm.rehearsal.experiments import BROKEN, Figure
from infra.swarm.rehearsal.images import NGINX_BASE, Builder
from infra.swarm.rehearsal.packages import build_secrets
from infra.swarm.rehearsal.stage import VERSION, Stage, expect
from infra.swarm.release import commit_of

ROOT: Final = Path(__file__).resolve().parents[3]
_LABELS: Final = ("sluice.edge", "sluice.compute", "sluice.storage")
_SIZE_LIMITS: Final = {"api": 400, "workers": 400, "emb": 800, "llm": 500}
_NGINX_OVER_BASE: Final = 60
_DEPLOY_LIMIT: Final = 240
_EXPERIMENTS: Final[tuple[Callable[[Stage], list[Figure]], ...]] = (
    experiments.no_way_out,
    experiments.modes,
    experiments.rolling_update,
    experiments.worker_killed,
    experiments.failed_smoke,
    experiments.secret_rotation,
    experiments.failed_update,
    experiments.tls,
)


def main() -> int:
    """Build, deploy, try everything, print the figures; 0 when each is within its limit."""
    parser = argparse.ArgumentParser(prog="make swarm-test", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the engine's images and the base for the next run")
    keep = parser.parse_args().keep
    if os.geteuid() != 0:
        sys.stderr.write("error: an engine of its own needs root: sudo make swarm-test\n")
        return 1
    # However this ends, the engine is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    home = ROOT / ".sluice-swarm"
    home.mkdir(mode=0o700, exist_ok=True)
    shutil.rmtree(home / "secrets", ignore_errors=True)
    try:
        figures = _rehearse(home, keep=keep)
    except DeployError as error:
        log = (home / "engine.log").read_text(errors="replace").splitlines()[-15:]
        sys.stderr.write("\n".join([f"error: {error}", "The engine's last words:", *log]) + "\n")
        return 1
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
    _print(figures)
    return 0 if all(figure.passed for figure in figures) else 1


def _rehearse(home: Path, *, keep: bool) -> list[Figure]:
    with engine(home, keep=keep) as docker:
        with build_secrets(home) as secrets:
            builder = Builder(docker, ROOT, home, secrets)
            for what, build in (
                ("base image", builder.base),
                ("stand-ins for images of a registry", builder.standins),
                ("our images", lambda: builder.ours(VERSION, commit_of(ROOT))),
            ):
                _timed(what, build)
        builder.broken_api(VERSION, BROKEN)
        figures = _image_figures(builder)
        node = docker.call("node", "ls", "--quiet").strip()
        for label in _LABELS:
            docker.call("node", "update", "--label-add", f"{label}=true", node)
        stage = Stage(docker, ROOT, home)
        expect(stage.deploy("init"), 0)
        try:
            figures.append(_first_deploy(stage))
            for experiment in _EXPERIMENTS:
                _timed(experiment.__name__.replace("_", " "), partial(_collect, figures, experiment, stage))
        finally:
            docker.call("stack", "rm", "rehearsal")
    return figures


def _collect(figures: list[Figure], experiment: Callable[[Stage], list[Figure]], stage: Stage) -> None:
    figures += experiment(stage)


def _first_deploy(stage: Stage) -> Figure:
    begun = time.monotonic()
    printed = expect(stage.update(), 0)
    seconds = time.monotonic() - begun
    _say("".join(f"  {line}\n" for line in printed.splitlines() if " ms" in line or "passed" in line).rstrip())
    return Figure("deploy to passed smoke suite", f"{seconds:.0f} s", f"{_DEPLOY_LIMIT} s", seconds < _DEPLOY_LIMIT)


def _image_figures(builder: Builder) -> list[Figure]:
    figures = []
    for name, limit in _SIZE_LIMITS.items():
        size = builder.megabytes(f"sluice/{name}:{VERSION}")
        figures.append(Figure(f"image {name}", f"{size:.0f} MB", f"{limit} MB", size < limit))
    over = builder.megabytes(f"sluice/nginx:{VERSION}") - builder.megabytes(NGINX_BASE)
    figures.append(
        Figure("image nginx over its base", f"{over:.1f} MB", f"{_NGINX_OVER_BASE} MB", over < _NGINX_OVER_BASE)
    )
    for module, images in (("sqlalchemy", ("emb", "llm")), ("torch", ("api", "workers", "emb"))):
        for name in images:
            there = builder.has_module(f"sluice/{name}:{VERSION}", module)
            figures.append(Figure(f"image {name} has {module}", str(there), "False", not there))
    for name in (*_SIZE_LIMITS, "nginx"):
        user = builder.user_of(f"sluice/{name}:{VERSION}")
        figures.append(Figure(f"image {name} runs as", user, "not root", user.split(":")[0] not in {"", "0", "root"}))
    return figures


def _timed(what: str, act: Callable[[], object]) -> None:
    begun = time.monotonic()
    act()
    _say(f"{what}: {time.monotonic() - begun:.0f} s")


def _print(figures: list[Figure]) -> None:
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        mark = "ok  " if figure.passed else "FAIL"
        _say(f"{mark} {figure.name:<{width}}  {figure.value}  (limit {figure.limit})")
    results = ROOT / "benchmarks" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "swarm.json").write_text(json.dumps([vars(figure) for figure in figures], indent=1) + "\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
