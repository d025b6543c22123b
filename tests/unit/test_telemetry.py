"""Ids that tie the work of several processes together: who may set them, and how they are handed on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sluice import telemetry

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def nobodys_work() -> Iterator[None]:
    telemetry.forget()
    yield
    telemetry.forget()


def trace_of(traceparent: str) -> list[str]:
    return traceparent.split("-")


def test_a_trace_goes_on_under_its_id_with_a_parent_of_our_own() -> None:
    telemetry.accept("request-0001", PARENT)

    handed_on = telemetry.passed_on()

    assert handed_on["request_id"] == "request-0001"
    version, trace, parent, flags = trace_of(handed_on["traceparent"])
    assert (version, trace, flags) == ("00", TRACE, "01")
    assert parent != trace_of(PARENT)[2]


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        "",
        "nonsense",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-00f067aa0ba902b7",
    ],
)
def test_a_malformed_parent_begins_a_new_trace(malformed: str | None) -> None:
    telemetry.accept(None, malformed)

    _, trace, parent, flags = trace_of(telemetry.passed_on()["traceparent"])

    assert trace != TRACE
    assert (len(trace), len(parent), flags) == (32, 16, "00")


def test_fields_of_a_later_version_are_no_reason_to_lose_the_trace() -> None:
    telemetry.accept(None, PARENT.replace("00-", "01-", 1) + "-something")

    assert trace_of(telemetry.passed_on()["traceparent"])[1] == TRACE


def test_the_next_process_goes_on_with_the_same_request_and_trace() -> None:
    telemetry.accept("request-0001", PARENT)
    message = telemetry.passed_on()
    telemetry.forget()

    telemetry.continue_work(message)

    assert telemetry.current_request_id() == "request-0001"
    headers = telemetry.http_headers()
    assert headers["x-request-id"] == "request-0001"
    assert trace_of(headers["traceparent"])[1] == TRACE
    assert headers["traceparent"] != message["traceparent"]


def test_work_of_nobody_hands_nothing_on() -> None:
    assert telemetry.passed_on() == {}
