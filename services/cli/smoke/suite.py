"""The smoke suite: its checks in order, and how they are run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from services.cli.exit_codes import CommandError, Exit
from services.cli.smoke import access, documents, questions
from services.cli.smoke.cleanup import Left, clean_up
from services.cli.smoke.interruption import postponed
from services.cli.smoke.visit import Json, Visit


@dataclass(frozen=True)
class Check:
    """Something that must work: `run` says what it saw, or raises `CommandError`."""

    name: str
    run: Callable[[Visit], Json]
    look_at: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """What came of a check."""

    name: str
    state: Literal["passed", "failed", "skipped"]
    milliseconds: float = 0.0
    seen: Json = field(default_factory=dict)
    error: str | None = None
    look_at: str | None = None
    status: Exit = Exit.OK


@dataclass
class Report:
    """What came of the suite."""

    results: list[Result] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    @property
    def failed(self) -> list[Result]:
        """The checks that failed, in order."""
        return [result for result in self.results if result.state == "failed"]

    @property
    def status(self) -> Exit:
        """0, or 1; when nobody answered or let us in, the status that says so."""
        if not self.failed:
            return Exit.OK
        return self.failed[0].status if self.failed[0].name in _WAY_IN else Exit.FAILED


CHECKS: Final = (
    Check("healthz", access.healthz, "the URL, the logs of nginx and of the api; for a certificate of yours, --ca"),
    Check("version", access.version, "the URL: is it Sluice's? Does nginx pass /api on as it is?", ("healthz",)),
    Check("login", access.login, "e-mail address and password; the log of the api, PostgreSQL", ("version",)),
    Check("source", documents.source, "the role of the account; the log of the api, PostgreSQL", ("login",)),
    Check("upload", documents.upload, "the log of the api, the object store; nginx: client_max_body_size", ("source",)),
    Check("ingest", documents.ingest, "the logs of dispatcher, worker and emb; RabbitMQ, Qdrant", ("upload",)),
    Check("knn", questions.knn, "emb and Qdrant; SLUICE_EMB_LANGUAGES, SLUICE_RETRIEVAL_MIN_SIMILARITY", ("ingest",)),
    Check("hybrid", questions.hybrid, "emb and Qdrant; the log of the api", ("ingest",)),
    Check("chat", questions.chat, "the logs of llm and api; nginx: proxy_buffering, proxy_read_timeout", ("ingest",)),
    Check("duplicate", documents.duplicate, "the log of the api", ("ingest",)),
    Check("cancel", documents.cancel, "the role of the account; the logs of api and worker", ("ingest",)),
    Check("retry", documents.retry, "the logs of dispatcher and worker", ("cancel",)),
    Check("erase", documents.erase, "the log of the api; Qdrant, the object store", ("ingest",)),
)
_WAY_IN: Final = frozenset({"healthz", "version", "login"})
_CLEANUP: Final = "cleanup"


def run(visit: Visit, report: Report, tell: Callable[[Result], None]) -> None:
    """Run the checks and report them, telling each result at once; whatever happens, clean up at the end."""

    def add(result: Result) -> None:
        report.results.append(result)
        tell(result)

    try:
        for check in CHECKS:
            add(_result_of(check, visit, report.results))
    finally:
        started = time.perf_counter()
        with postponed():
            visit.client.renew()
            report.left = clean_up(visit)
            add(_cleaned(report.left, _since(started)))


def _result_of(check: Check, visit: Visit, before: Sequence[Result]) -> Result:
    passed = {result.name for result in before if result.state == "passed"}
    if lacking := [name for name in check.needs if name not in passed]:
        return Result(check.name, "skipped", error=f"needs {', '.join(lacking)}")
    started = time.perf_counter()
    try:
        seen = check.run(visit)
    except CommandError as error:
        return _failed(check, started, str(error), error.status)
    except (KeyError, IndexError, TypeError) as error:
        sentence = f"The server's answer is not as this version of sluice expects it: {error!r}."
        return _failed(check, started, sentence, Exit.SERVER_ERROR)
    return Result(check.name, "passed", _since(started), seen)


def _failed(check: Check, started: float, sentence: str, status: Exit) -> Result:
    return Result(check.name, "failed", _since(started), error=sentence, look_at=check.look_at, status=status)


def _cleaned(left: Sequence[Left], milliseconds: float) -> Result:
    stuck = [f"{each.what} {each.id}: {each.why}" for each in left if each.failed]
    if not stuck:
        return Result(_CLEANUP, "passed", milliseconds)
    look_at = "sluice docs rm, when the stores are back"
    return Result(_CLEANUP, "failed", milliseconds, error="; ".join(stuck), look_at=look_at, status=Exit.FAILED)


def _since(moment: float) -> float:
    return round((time.perf_counter() - moment) * 1000, 1)
