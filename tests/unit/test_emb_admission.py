"""How much may wait in front of the model."""

from __future__ import annotations

import pytest

from services.emb.admission import Admission, Throughput, estimated_tokens
from sluice.errors import TooLarge, TooManyRequests


def test_a_request_gets_all_its_tokens_or_none() -> None:
    admission = Admission(100, Throughput())
    with admission.reserve(70):
        with pytest.raises(TooManyRequests), admission.reserve(31):
            pytest.fail("31 tokens do not fit beside 70")
        assert admission.tokens == 70
        with admission.reserve(30):
            assert admission.tokens == 100
    assert admission.tokens == 0


def test_the_tokens_are_free_again_when_the_request_fails() -> None:
    admission = Admission(100, Throughput())
    with pytest.raises(ValueError, match="broken"), admission.reserve(70):
        raise ValueError("broken")
    assert admission.tokens == 0


def test_an_estimate_is_corrected_and_the_correction_given_back() -> None:
    admission = Admission(100, Throughput())
    with admission.reserve(10) as reserved:
        reserved.resize(60)
        assert admission.tokens == 60
        with pytest.raises(TooLarge):
            reserved.resize(101)
        assert admission.tokens == 60
    assert admission.tokens == 0


def test_a_request_that_can_never_fit_is_not_told_to_come_back() -> None:
    with pytest.raises(TooLarge, match="Split it"), Admission(100, Throughput()).reserve(101):
        pytest.fail("101 tokens do not fit into 100")


def test_a_text_counts_no_more_tokens_than_the_model_reads_of_it() -> None:
    assert estimated_tokens(["x" * 100_000] * 11, max_tokens=256) == 2_816
    assert estimated_tokens(["x" * 40, ""], max_tokens=256) == 14


def test_who_is_refused_is_told_how_long_the_excess_takes_at_the_measured_speed() -> None:
    throughput = Throughput()
    for _ in range(100):
        throughput.record(tokens=500, seconds=10.0)
    admission = Admission(1000, throughput)
    with admission.reserve(1000), pytest.raises(TooManyRequests) as refused, admission.reserve(500):
        pytest.fail("the queue is full")
    assert refused.value.retry_after == pytest.approx(10.0, rel=0.01)


def test_a_batch_counts_by_its_tokens() -> None:
    throughput = Throughput()
    throughput.start_from(10_000, 1.0)
    throughput.record(tokens=1024, seconds=1.024)
    assert throughput.tokens_per_second == pytest.approx(8_200)
    throughput.record(tokens=128, seconds=0.128)
    assert throughput.tokens_per_second == pytest.approx(7_982, abs=1)


def test_idle_questions_do_not_make_the_model_look_slow() -> None:
    throughput = Throughput()
    throughput.start_from(10_000, 1.0)
    for _ in range(10_000):
        throughput.record(tokens=10, seconds=0.005)
    assert throughput.tokens_per_second == 10_000


def test_a_small_batch_shows_that_the_model_is_faster_than_it_was() -> None:
    throughput = Throughput()
    throughput.start_from(1_000, 1.0)
    for _ in range(2_000):
        throughput.record(tokens=100, seconds=0.02)
    assert throughput.tokens_per_second == pytest.approx(5_000, rel=0.01)
