"""Documents read in a child process, so that a hostile file ends the child and never the worker."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from services.workers.parsing.child import Request
from services.workers.parsing.document import damaged, too_complex
from sluice.errors import DocumentUnreadable, SluiceError
from sluice.telemetry import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from services.workers.parsing.document import ParseOptions

_POLL_SECONDS: Final = 0.25
_LOGGED_BYTES: Final = 4000
# What the child may know of this process: where programs and packages are, and no secret.
_PASSED_ON: Final = ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR", "TESSDATA_PREFIX", "LD_LIBRARY_PATH")
# Tesseract and the libraries of numbers would take every core there is.
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_PIPE_BYTES: Final = 65_536


class Stopped(SluiceError):
    """Reading the document was stopped, because whoever asked for it no longer wants it."""

    code = "stopped"


@dataclass(frozen=True, slots=True)
class ParseReport:
    """What was read: blocks and characters written to the output, and the most memory that it took."""

    title: str | None
    pages: int | None
    encoding: str | None
    blocks: int
    characters: int
    peak_bytes: int


def parse_document(
    path: Path,
    mime: str,
    options: ParseOptions,
    *,
    output: Path,
    on_progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> ParseReport:
    """Read a document into `output`, a line of `Block.to_json` for each block.

    `on_progress` hears of pages (done, total); `should_stop` is asked several times a second. Raises `Stopped`, or
    `DocumentUnreadable` with one of the codes `encrypted`, `damaged`, `no_text` and `too_complex`, and the fact `page`
    where one page is to blame.
    """
    request = Request(str(path), mime, str(output), os.getpid(), options)
    with tempfile.TemporaryFile() as errors, _child(request, errors) as child:
        for message in _messages(child, options, should_stop):
            if "report" in message:
                return ParseReport(**message["report"])
            if "failure" in message:
                _log(errors, mime)
                raise _failed(**message["failure"])
            if on_progress is not None:
                on_progress(*message["progress"])
        _log(errors, mime)
        raise _explained(_exit_status(child), options)


@contextmanager
def _child(request: Request, errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The child at work on the request; at the end it is gone, with every process that it started."""
    child = subprocess.Popen(
        [sys.executable, "-m", "services.workers.parsing.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ENVIRONMENT,
        start_new_session=True,
    )
    try:
        _hand_over(request, child)
        yield child
    finally:
        # Its id cannot be another process's yet: nobody has waited for it.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        _pipe(child.stdout).close()


def _hand_over(request: Request, child: subprocess.Popen[bytes]) -> None:
    # A child that dies at once breaks the pipe; its exit status says more than that.
    with suppress(BrokenPipeError), _pipe(child.stdin) as stdin:
        stdin.write(request.to_json().encode() + b"\n")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("The child was started without pipes.")
    return stream


def _messages(
    child: subprocess.Popen[bytes], options: ParseOptions, should_stop: Callable[[], bool]
) -> Iterator[dict[str, Any]]:
    """What the child says until it ends, as long as time remains and the document is wanted."""
    deadline = time.monotonic() + options.timeout_seconds
    stdout = _pipe(child.stdout)
    unfinished = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            if should_stop():
                raise Stopped
            if time.monotonic() > deadline:
                raise _took_too_long(options)
            if not selector.select(_POLL_SECONDS):
                continue
            if not (received := os.read(stdout.fileno(), _PIPE_BYTES)):
                return
            *lines, unfinished = (unfinished + received).split(b"\n")
            yield from map(json.loads, lines)


def _exit_status(child: subprocess.Popen[bytes]) -> int:
    """How the child ended: its exit code, or minus the signal that killed it. It stays a zombie, which keeps its id."""
    ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    if ended is None:
        raise RuntimeError("The child vanished.")
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _explained(status: int, options: ParseOptions) -> Exception:
    """What it means that the child ended without a word."""
    if status == -signal.SIGXCPU:
        return _took_too_long(options)
    if status == -signal.SIGKILL:  # the kernel's, when memory runs out or processor time is far exceeded
        return too_complex("Reading the document takes more memory than this machine can spare.")
    if status < 0:
        return damaged("The file is damaged: the program that reads this format crashed on it.")
    return RuntimeError(f"The parsing child ended with exit code {status}; its last words are in the log.")


def _failed(*, code: str, detail: str, page: int | None) -> DocumentUnreadable:
    return DocumentUnreadable(detail, code=code, **({} if page is None else {"page": page}))


def _took_too_long(options: ParseOptions) -> DocumentUnreadable:
    return too_complex(
        f"Reading the document takes longer than the {options.timeout_seconds:.0f} seconds that are allowed "
        "(SLUICE_INGEST_PARSE_TIMEOUT_SECONDS)."
    )


def _log(errors: IO[bytes], mime: str) -> None:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _LOGGED_BYTES))
    if words := errors.read().decode(errors="replace").strip():
        logger().warning("parsing.child_failed", mime=mime, stderr=words)
