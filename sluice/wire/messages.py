"""Messages between the dispatcher and the workers: ids only, so that PostgreSQL stays the only truth."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A wake-up hint. Losing it delays work, and receiving it twice changes nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task_name: ClassVar[str]


class RunStep(Message):
    """Claim this step and run it."""

    task_name: ClassVar[str] = "jobs.run_step"

    tenant_id: UUID
    step_id: UUID
    # A worker dead-letters a schema that it does not know, rather than guess.
    schema_version: Literal[1] = 1
