"""The rows of a batch. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.llm.backends.llama_cpp.answer import Answer


@dataclass(frozen=True, slots=True)
class Row:
    """A token of a batch: where it stands, and whether the next token is to be told from it."""

    token: int
    position: int
    sequence: int
    wanted: bool


def rows_of(batch: Sequence[Answer], parts: Mapping[int, int]) -> tuple[list[Row], list[int]]:
    """The rows for these answers, and the index of each answer's last one.

    A running answer has one row, its newest token; one whose prompt is being read has as many as `parts` says for its
    sequence, and wants the next token only if they are the last of its prompt.
    """
    rows: list[Row] = []
    last_rows: list[int] = []
    for answer in batch:
        if answer.next_token is not None:
            rows.append(Row(answer.next_token, answer.position, answer.sequence, wanted=True))
        else:
            tokens = answer.prompt_part(parts[answer.sequence])
            last = answer.position + len(tokens) - 1
            rows += [
                Row(token, position, answer.sequence, wanted=position == last and len(tokens) == answer.unread)
                for position, token in enumerate(tokens, start=answer.position)
            ]
        last_rows.append(len(rows) - 1)
    return rows, last_rows
