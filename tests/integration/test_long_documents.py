"""Documents of several parts whose points get lost on the way: they are shown once the index has all of them again."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from services.workers.ingest import PART, finalize
from services.workers.turns import Turn
from sluice.db.session import tenant_session
from sluice.jobs import claims
from sluice.jobs.claims import Claim
from sluice.jobs.models import Job, JobStep
from sluice.jobs.state import JobState
from tests.integration.indexed_world import JOBS, IndexedWorld

# Parts go to queues that the platform's own workers consume.
pytestmark = pytest.mark.usefixtures("no_dispatcher")


@pytest.fixture
def version_id(world: IndexedWorld) -> UUID:
    """A document whose three parts are indexed, and which is not shown yet."""
    text = "\n\n".join(
        f"Section {n}. " + f"The keeper of light {n} wrote it down. " * 16 for n in range(3 * PART - 120)
    )
    version_id = world.upload(text)
    world.ingest(version_id)
    while (claim := next_claim(world, version_id)).step == "embed":
        world.run(claim)
    give_back(world, claim)
    assert 2 * PART < len(world.chunks(version_id)) <= 3 * PART
    return version_id


def test_what_was_lost_is_put_into_the_index_again_in_turns(world: IndexedWorld, version_id: UUID) -> None:
    chunks = len(world.chunks(version_id))
    lose_points(world, version_id, after=PART + 10)

    steps = 0
    while not world.is_shown(version_id):
        finalize_for_a_moment(world, version_id)
        steps += 1
        assert steps <= 3

    job = job_of(world, version_id)
    assert steps == 3
    assert set(world.points(version_id).values()) == {chunks}
    assert (job.state, job.parts_done, job.parts_total) == (JobState.READY, 3, 3)
    assert (job.done, job.total) == (chunks, chunks)
    assert len(world.first.embedded) == chunks, "vectors are kept"


def test_what_is_lost_again_meanwhile_is_noticed(world: IndexedWorld, version_id: UUID) -> None:
    chunks = len(world.chunks(version_id))
    lose_points(world, version_id, after=0)
    finalize_for_a_moment(world, version_id)
    lose_points(world, version_id, after=0)

    steps = 1
    while not world.is_shown(version_id):
        finalize_for_a_moment(world, version_id)
        steps += 1
        assert steps <= 6

    assert set(world.points(version_id).values()) == {chunks}


def test_a_model_that_moves_is_caught_up_with_in_turns(world: IndexedWorld, version_id: UUID) -> None:
    chunks = len(world.chunks(version_id))
    world.second.become(f"second-2-{world.mark}")

    while not world.is_shown(version_id):
        finalize_for_a_moment(world, version_id)

    assert world.points(version_id)[f"chunks_{world.aliases[1]}_second-2"] == chunks
    assert world.noted(version_id) == world.models()


def finalize_for_a_moment(world: IndexedWorld, version_id: UUID) -> None:
    """Run the last step with a turn that is over after one part."""
    claim, it = next_claim(world, version_id), world.resources()
    assert claim.step == "finalize"
    with it.keeper.keep(claim) as lease:
        finalize(it, claim, lease, Turn(0))


def next_claim(world: IndexedWorld, version_id: UUID) -> Claim:
    waiting = select(JobStep.id).join(Job, Job.id == JobStep.job_id)
    waiting = waiting.where(Job.version_id == version_id, JobStep.state == JobState.QUEUED).order_by(JobStep.id)
    with tenant_session(world.stores.sessions, world.tenant_id) as session:
        claim = claims.claim(session, session.scalars(waiting).first() or uuid4(), worker="test", settings=JOBS)
    assert claim is not None
    return claim


def give_back(world: IndexedWorld, claim: Claim) -> None:
    with tenant_session(world.stores.sessions, world.tenant_id) as session:
        session.get_one(JobStep, claim.step_id).state = JobState.QUEUED


def job_of(world: IndexedWorld, version_id: UUID) -> Job:
    with tenant_session(world.stores.sessions, world.tenant_id) as session:
        job = session.scalars(select(Job).where(Job.version_id == version_id)).one()
        session.expunge_all()
        return job


def lose_points(world: IndexedWorld, version_id: UUID, *, after: int) -> None:
    """Lose the points of the chunks from a place on, in the index of the first alias."""
    lost = {chunk.id for chunk in world.chunks(version_id) if chunk.ordinal >= after}
    collection = f"chunks_{world.aliases[0]}_first-1-{world.mark}"
    points, following = world.stores.index.page(world.tenant_id, collection, None, 1000)
    assert following is None
    chosen = [point.point_id for point in points if point.chunk_id in lost]
    world.stores.index.delete_points(world.tenant_id, collection, chosen)
