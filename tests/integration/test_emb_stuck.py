"""What EMB does when its model does not come back.

The numbers are those of the complaints about its peers in `docs/operations.md`.
"""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from services.emb import main
from services.emb.metrics import EmbMetrics
from services.emb.queue import EmbeddingQueue, State
from sluice.settings import EmbServiceSettings
from tests.integration.emb_served import GatedModel, Served, Wishes, serving, until, with_gated_model


def test_a_stuck_model_is_not_ready_while_health_is_answered() -> None:
    """Complaints 2, 26 and 31."""

    async def case(served: Served) -> None:
        first = await served.occupy()
        await asyncio.sleep(0.4)
        assert (await served.http.get("/healthz")).status_code == 200
        answer = await served.http.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "The model's thread is stuck.")
        served.model.gate.set()
        assert (await first).status_code == 200

    with_gated_model(case, stuck_seconds=0.2)


def test_a_model_that_is_stuck_for_good_ends_the_process_which_is_started_again() -> None:
    """Complaint 2."""

    async def case() -> None:
        model, gone = GatedModel(), asyncio.Event()
        settings = EmbServiceSettings(stuck_seconds=1)
        queue = EmbeddingQueue(lambda _: model, Wishes(), settings, EmbMetrics(), give_up_seconds=0.2)
        queue.start(gone.set)
        await until(lambda: queue.state is State.READY)
        await asyncio.sleep(0.5)
        assert not gone.is_set()
        model.gate.clear()
        waiting = asyncio.create_task(queue.embed(queue.model("default"), ["stuck"], "query"))
        await gone.wait()
        assert queue.state is State.FAILED
        assert "stuck" in (queue.why_not_ready() or "")
        queue.stop()
        model.gate.set()
        await waiting

    asyncio.run(asyncio.wait_for(case(), 30))


def test_sigterm_ends_the_service_although_the_model_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Complaint 2."""
    monkeypatch.setattr(main, "_CLOSE_SECONDS", 1)
    model = GatedModel()

    async def run() -> None:
        async with serving(lambda _: model, drain_seconds=0.5, stuck_seconds=0.2) as served:
            served.model = model
            await served.until_stats(state="ready")
            stuck = await served.occupy()
            served.server.handle_exit(signal.SIGTERM, None)
            await served.until_stats(state="draining")
            with pytest.raises(httpx.HTTPError):
                (await stuck).raise_for_status()
        model.gate.set()

    asyncio.run(asyncio.wait_for(run(), timeout=60))
