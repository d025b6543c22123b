from __future__ import annotations

from collections.abc import Sequence

from sluice.documents.budget import measured_for


def letters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def test_text_that_the_model_reads_is_measured_in_its_tokens() -> None:
    count = measured_for(["en"], letters)

    assert count(["a virtual package", "two"]) == [17, 3]


def test_text_in_a_script_that_the_model_does_not_read_is_measured_in_words() -> None:
    count = measured_for(["en"], letters)

    assert count(["Что такое виртуальный пакет?", "two", "Пакет dpkg"]) == [6, 3, 3]


def test_a_model_that_reads_russian_measures_russian_itself() -> None:
    count = measured_for(["en", "ru"], letters)

    assert count(["пакет"]) == [5]
