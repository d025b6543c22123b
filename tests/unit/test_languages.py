from __future__ import annotations

import pytest

from sluice.documents.languages import detect


@pytest.mark.parametrize(
    "question",
    [
        "how are you",
        "debian policy",
        "package maintainer",
        "lost lease",
        "upload files",
        "orphaned package adoption",
        "vector database index",
        "refund policy",
        "default gateway",
        "dpkg",
        "ok",
        "error 404 nginx",
        "What is a virtual package?",
    ],
)
def test_a_short_question_in_latin_letters_is_english(question: str) -> None:
    assert detect(question) == "en"


@pytest.mark.parametrize(
    "question",
    ["как дела", "файл", "настройка сети", "версия ядра", "что такое dpkg", "договор аренды", "Где взять Debian?"],
)
def test_a_short_question_in_cyrillic_letters_is_russian(question: str) -> None:
    assert detect(question) == "ru"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Was ist ein Paket?", "de"),
        ("Політика відпусток нашої компанії", "uk"),
        ("Il manutentore deve leggere le segnalazioni degli utenti e rispondere a tutte.", "it"),
        ("Der Paketbetreuer muss die Fehlerberichte lesen, die ihm die Benutzer schicken.", "de"),
        ("The maintainer must read the bug reports that users send, and answer all of them.", "en"),
        ("Сопровождающий должен читать отчёты об ошибках, которые присылают пользователи.", "ru"),
        ("これは日本語で書かれた文章です。", "ja"),
        ("Ποια είναι η πολιτική αδειών της εταιρείας;", "el"),
    ],
)
def test_a_text_that_is_plainly_in_a_language_is_told(text: str, language: str) -> None:
    assert detect(text) == language


def test_latin_terms_do_not_make_a_russian_text_english() -> None:
    assert detect("Установите пакеты apt-transport-https, build-essential, debhelper и devscripts командой") == "ru"


@pytest.mark.parametrize("text", ["", "   ", "12 345", "§ 7", "x"])
def test_a_text_without_words_has_no_language(text: str) -> None:
    assert detect(text) == "und"
