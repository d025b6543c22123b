"""What actions on many things have in common: a number that is confirmed, and one that says what came of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Self

from pydantic import BaseModel, Field

from sluice.jobs.bulk import Outcome

Confirm = Annotated[
    int | None,
    Field(ge=0, le=10_000_000, description="How many match; leave it out to be told (409, `matching`)"),
]


class BulkOutcome(BaseModel):
    """What came of an action on many things."""

    matching: int
    changed: int
    skipped: int = Field(description="Changed by somebody else meanwhile, or not to be changed like this")

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        """What is shown of it."""
        return cls(**asdict(outcome))
