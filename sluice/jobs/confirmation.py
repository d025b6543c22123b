"""What is done to many things at once is done to a number that a person has seen and said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from sluice.errors import Conflict, Invalid


class Filter(BaseModel):
    """What things have in common; a member that is not given leaves all of them in.

    A member that does not exist is an error and not left out: the filter would be wider than it was meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def as_facts(self) -> dict[str, Any]:
        """The members that were given, for the audit log."""
        return self.model_dump(mode="json", exclude_none=True)

    def require_some(self) -> None:
        """Raise `Invalid` for a filter that fits everything."""
        if not self.as_facts():
            names = ", ".join(f"`{name}`" for name in type(self).model_fields)
            raise Invalid(
                f"The filter is empty and would fit everything. Name at least one member: {names}.",
                code="filter_empty",
            )


def confirmed(
    confirm: int | None, *, count: Callable[[], int], read: Callable[[int], Sequence[UUID]]
) -> Sequence[UUID]:
    """The ids of what matches, when it is the number that was said; else `Conflict` with the number that match now.

    No more is read than was confirmed and one.
    """
    if confirm is None:
        matching = count()
        raise Conflict(
            f"{matching} match. Nothing was done; send the same with `confirm`: {matching}.",
            code="confirmation_needed",
            matching=matching,
        )
    chosen = read(confirm + 1)
    if len(chosen) != confirm:
        matching = count()
        raise Conflict(
            f"{matching} match now, and not {confirm}. Nothing was done; look again, then confirm the new number.",
            code="confirmation_mismatch",
            matching=matching,
        )
    return chosen
