"""EMB follows the models folder: what its manifest says is loaded, at the start and whenever it changes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Protocol

from services.emb.catalog import WantedModel
from services.emb.models import Change, Models
from sluice import telemetry
from sluice.errors import SluiceError


class Wanted(Protocol):
    """What the aliases are to mean."""

    def wanted(self) -> dict[str, WantedModel]:
        """The model for each alias; a `SluiceError` if that cannot be read."""

    def changed_at(self) -> object:
        """A value that is another after each change; cheap."""


class Following:
    """Keeps the loaded models what is wanted. Belongs to one event loop."""

    def __init__(self, wanted: Wanted, models: Models, poll_seconds: float) -> None:
        self._wanted = wanted
        self._models = models
        self._poll_seconds = poll_seconds
        self._seen: object = None
        self._polling: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Load what is wanted now, and look for changes from then on."""
        with suppress(SluiceError):  # logged
            await self.now()
        self._polling = asyncio.get_running_loop().create_task(self._poll())

    def end(self) -> None:
        """Look no more."""
        if self._polling is not None:
            self._polling.cancel()

    async def now(self) -> dict[str, Change]:
        """Load what is wanted now; raises what keeps it from being read, and then nothing changes."""
        self._seen = self._wanted.changed_at()
        try:
            wanted = self._wanted.wanted()
        except SluiceError as error:
            telemetry.logger().error("models.unreadable", code=error.code, reason=error.detail)
            raise
        return await self._models.become(wanted)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                if self._wanted.changed_at() != self._seen:
                    await self.now()
            except SluiceError:
                continue  # logged; the models that are loaded go on
            except Exception:  # noqa: BLE001 - logged; tomorrow's change is to be seen
                telemetry.logger().exception("models.poll_failed")
