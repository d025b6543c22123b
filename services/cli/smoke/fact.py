"""Something that only the smoke suite's own document says, in English and in Russian."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Self

# Latin and Cyrillic letters of the same sounds: names that nobody bears.
_SYLLABLES: Final = (
    ("vor", "вор"), ("lun", "лун"), ("mika", "мика"), ("tesh", "теш"), ("ran", "ран"), ("dolo", "доло"),
    ("pri", "при"), ("zelu", "зелу"), ("kom", "ком"), ("bar", "бар"), ("nedi", "неди"), ("gas", "гас"),
    ("sutra", "сутра"), ("fel", "фел"), ("mor", "мор"), ("tavi", "тави"),
)  # fmt: skip

_ENGLISH: Final = (
    "On a black cliff above the sea stands a lighthouse. Its lamp shows ships the way into the harbour in the dark. "
    "The keeper of the {place} lighthouse is called {keeper}. Every evening he climbs {steps} steps and lights the "
    "lamp. When fog comes in, a bell is rung from the tower until morning."
)
_RUSSIAN: Final = (
    "На чёрной скале над морем стоит маяк. Его лампа показывает кораблям путь в гавань в темноте. Смотрителя маяка "
    "{place} зовут {keeper}. Каждый вечер он поднимается на {steps} ступеней и зажигает лампу."
)
_CHRONICLE: Final = "In year {year} of its chronicle the town of {place} counted {ships} ships and {barrels} barrels."
_YEARS: Final = 150


@dataclass(frozen=True)
class Fact:
    """An invented fact, and questions that only it answers."""

    text: str
    question: str
    question_in_russian: str
    # Shares no word with the text but those that every text has.
    paraphrase: str
    # Another text, long enough to be caught while it is being read.
    chronicle: str

    @classmethod
    def invented(cls) -> Self:
        """A fact that no document has said before."""
        place, keeper = _name(), _name()
        steps = 100 + secrets.randbelow(900)
        english = _ENGLISH.format(place=place[0], keeper=keeper[0], steps=steps)
        russian = _RUSSIAN.format(place=place[1], keeper=keeper[1], steps=steps)
        years = (
            _CHRONICLE.format(year=year, place=place[0], ships=secrets.randbelow(900), barrels=secrets.randbelow(9000))
            for year in range(1, _YEARS + 1)
        )
        return cls(
            text=f"{english}\n\n{russian}\n",
            question=f"What is the keeper of the {place[0]} lighthouse called?",
            question_in_russian=f"Как зовут смотрителя маяка {place[1]}?",
            paraphrase="Which beacon by the ocean guides sailors to port at night?",
            chronicle=" ".join(years) + "\n",
        )


def _name() -> tuple[str, str]:
    """A name of three syllables, in both alphabets."""
    chosen = [secrets.choice(_SYLLABLES) for _ in range(3)]
    latin, cyrillic = ("".join(syllable[alphabet] for syllable in chosen).capitalize() for alphabet in (0, 1))
    return latin, cyrillic
