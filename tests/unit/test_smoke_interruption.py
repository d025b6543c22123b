"""Ctrl-C while the smoke suite cleans up: it waits until that is done, unless it is pressed again."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from services.cli.smoke.interruption import let_sigterm_unwind, postponed


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Those of a command in the foreground; the run's own come back afterwards."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    let_sigterm_unwind()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "ending"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_waits_until_the_block_has_ended(number: signal.Signals, ending: type[BaseException]) -> None:
    reached: list[bool] = []

    def clean_up() -> None:
        with postponed():
            signal.raise_signal(number)
            reached.append(True)

    with pytest.raises(ending):
        clean_up()
    assert reached


def test_the_second_signal_has_its_effect_at_once() -> None:
    reached: list[bool] = []

    def clean_up() -> None:
        with postponed():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            reached.append(True)

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    assert not reached


def test_after_the_block_signals_do_what_they_did_before() -> None:
    with postponed():
        pass

    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    with postponed():
        signal.raise_signal(signal.SIGINT)
