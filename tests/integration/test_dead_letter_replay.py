"""Dead letters: what they say, and that new work begins in the transaction that closes them, once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, func, select, text, update

from sluice.documents import replay as replays
from sluice.errors import Conflict, DocumentUnreadable, Invalid, SluiceError
from sluice.identity import audit
from sluice.jobs import actions, claims, dead_letters, endings
from sluice.jobs.bulk import Outcome
from sluice.jobs.dead_letters import DeadLetterNotFound, LetterFilter, Owner, Resolution, signature_of
from sluice.jobs.models import DeadLetter, Job
from sluice.jobs.state import JobState
from tests.integration.job_bench import SETTINGS, Bench

pytestmark = pytest.mark.usefixtures("no_dispatcher")

BOOM: Final = SluiceError("The parser tripped over object 17.", code="boom")
SOMEBODY: Final = uuid4()


@pytest.fixture
def given_up(bench: Bench) -> UUID:
    """A step that failed for good."""
    return give_up(bench)


def give_up(bench: Bench, error: SluiceError = BOOM) -> UUID:
    step_id = bench.submit()
    claim = bench.claimed(step_id)
    with bench.session() as session:
        claims.progress(session, claim, "extract", 3, 9)
        claims.fail(session, claim, error)
    return step_id


def letters(bench: Bench, wanted: LetterFilter | None = None, **more: Any) -> list[DeadLetter]:
    with bench.session() as session:
        found = list(dead_letters.page(session, wanted or LetterFilter(), limit=1000, **more))
        session.expunge_all()
        return found


def the_letter(bench: Bench) -> DeadLetter:
    (letter,) = letters(bench)
    return letter


def replay(bench: Bench, letter_id: UUID, options: dict[str, Any] | None = None) -> DeadLetter:
    with bench.session() as session:
        letter = replays.replay(session, letter_id, options=options, settings=SETTINGS, by=SOMEBODY)
        session.refresh(letter)
        session.expunge(letter)
        return letter


def broker_letter(bench: Bench, **facts: Any) -> UUID:
    """A message that RabbitMQ gave up."""
    given = {"origin": "broker", "reason": "expired", "signature": "0" * 16, "message_id": uuid4().hex, **facts}
    with bench.session() as session:
        letter = DeadLetter(**given)
        session.add(letter)
        session.flush()
        return letter.id


def recorded(bench: Bench) -> list[str]:
    with bench.session() as session:
        return [found.entry.action for found in reversed(audit.page(session, limit=100))]


def test_work_that_was_given_up_says_what_failed_and_how_far_it_had_come(bench: Bench, given_up: UUID) -> None:
    letter, job = the_letter(bench), bench.job_of(given_up)

    assert (letter.origin, letter.reason, letter.job_id, letter.step_id) == ("job", "boom", job.id, given_up)
    assert (letter.step, letter.part, letter.attempts, letter.queue) == ("ingest", 0, 1, bench.queue)
    assert (letter.error_class, letter.error_message) == ("SluiceError", BOOM.detail)
    assert letter.position == {"stage": "extract", "done": 3, "total": 9}
    assert letter.resolved_at is None


def test_a_page_that_a_parser_names_and_the_fault_behind_the_error_are_in_the_letter(bench: Bench) -> None:
    give_up(
        bench, DocumentUnreadable("Page 7.", page=7, cause_class="PdfiumError", cause_message="bad \x00 \ud800 xref")
    )

    letter = the_letter(bench)

    assert letter.position["page"] == 7
    assert (letter.error_class, letter.error_message) == ("PdfiumError", "bad \ufffd \ufffd xref")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("page 3 of 19", "page 14 of 200", True),
        (f"no chunk {uuid4()}", f"no chunk {uuid4()}", True),
        ("cannot open 'a.pdf'", 'cannot open "b.pdf"', True),
        ("took 3.25 s", "took 17 s", True),
        ("no such object", "no such page", False),
    ],
)
def test_failures_that_differ_in_particulars_alone_have_one_signature(one: str, other: str, *, same: bool) -> None:
    of_one, of_other = (signature_of("extract", "damaged", "PdfiumError", message) for message in (one, other))

    assert (of_one == of_other) == same
    assert of_one != signature_of("embed", "damaged", "PdfiumError", one)
    assert of_one != signature_of("extract", "too_complex", "PdfiumError", one)
    assert of_one != signature_of("extract", "damaged", "OSError", one)


def test_open_letters_are_grouped_by_kind_the_most_frequent_first(bench: Bench) -> None:
    for n in range(3):
        give_up(bench, SluiceError(f"Object {n} is broken.", code="damaged"))
    give_up(bench, SluiceError("Needs a password.", code="encrypted"))
    with bench.session() as session:
        dead_letters.discard(session, letters(bench)[-1].id, by=SOMEBODY)

    with bench.session() as session:
        first, second = dead_letters.groups(session)

    assert (first.open, first.reason, second.open, second.reason) == (2, "damaged", 1, "encrypted")
    assert first.first_at < first.last_at
    assert len(letters(bench, LetterFilter(signature=first.signature), resolved=False)) == 2
    assert len(letters(bench, LetterFilter(signature=first.signature), resolved=True)) == 1


def test_replaying_a_letter_tries_its_job_again_from_its_checkpoint(bench: Bench, given_up: UUID) -> None:
    letter = replay(bench, the_letter(bench).id)

    job = bench.job_of(given_up)
    assert (letter.resolution, letter.replay_job_id, letter.resolved_by) == (Resolution.REPLAYED, job.id, SOMEBODY)
    assert job.state is JobState.QUEUED
    assert len(bench.messages(given_up)) == 2
    assert bench.claimed(given_up).attempt == 2
    assert recorded(bench) == ["dead_letter.replay"]


def test_replaying_a_replayed_letter_answers_the_same_job_and_begins_nothing(bench: Bench, given_up: UUID) -> None:
    first = replay(bench, the_letter(bench).id)

    second = replay(bench, first.id)

    assert (second.replay_job_id, second.resolved_at) == (first.replay_job_id, first.resolved_at)
    assert len(bench.messages(given_up)) == 2
    assert recorded(bench) == ["dead_letter.replay"]


def test_of_many_replays_at_once_one_begins_an_attempt_and_all_are_answered(bench: Bench, given_up: UUID) -> None:
    letter_id = the_letter(bench).id

    with ThreadPoolExecutor(4) as people:
        answers = list(people.map(lambda _: replay(bench, letter_id), range(4)))

    assert {answer.replay_job_id for answer in answers} == {bench.job_of(given_up).id}
    assert len(bench.messages(given_up)) == 2


def test_a_replay_and_a_retry_at_once_begin_one_attempt(bench: Bench, given_up: UUID) -> None:
    letter, job_id = the_letter(bench), bench.job_of(given_up).id

    def retry() -> str:
        try:
            with bench.session() as session:
                actions.retry(session, job_id, SETTINGS, by=SOMEBODY)
        except Conflict as error:
            return error.code
        return "done"

    with ThreadPoolExecutor(2) as people:
        retried, replayed = people.submit(retry), people.submit(replay, bench, letter.id)
        outcome, answer = retried.result(), replayed.result()

    assert len(bench.messages(given_up)) == 2
    assert answer.replay_job_id == job_id
    assert (outcome, the_letter(bench).resolution) in {("done", "retried"), ("action_not_allowed", "replayed")}


def test_a_replay_that_does_not_come_to_its_end_leaves_the_letter_open_and_sends_nothing(
    bench: Bench, given_up: UUID
) -> None:
    class PowerCutError(Exception):
        pass

    letter_id = the_letter(bench).id

    def replay_and_lose_power() -> None:
        with bench.session() as session:
            replays.replay(session, letter_id, settings=SETTINGS, by=SOMEBODY)
            raise PowerCutError

    with pytest.raises(PowerCutError):
        replay_and_lose_power()

    assert the_letter(bench).resolved_at is None
    assert bench.job_of(given_up).state is JobState.FAILED
    assert len(bench.messages(given_up)) == 1
    assert recorded(bench) == []


def test_a_letter_whose_job_was_tried_again_already_is_answered_with_that_job(bench: Bench, given_up: UUID) -> None:
    with bench.session() as session:
        job_id = actions.retry(session, bench.job_of(given_up).id, SETTINGS, by=SOMEBODY).id

    letter = replay(bench, the_letter(bench).id)

    assert (letter.resolution, letter.replay_job_id) == (Resolution.RETRIED, job_id)
    assert len(bench.messages(given_up)) == 2


def test_an_open_letter_of_a_job_that_goes_on_is_closed_with_it(bench: Bench, given_up: UUID) -> None:
    with bench.session() as session:
        job = endings.hold(session, bench.job_of(given_up).id)
        assert job is not None
        job.state = JobState.READY

    letter = replay(bench, the_letter(bench).id)

    assert (letter.resolution, letter.replay_job_id) == (Resolution.REPLAYED, bench.job_of(given_up).id)
    assert bench.job_of(given_up).state is JobState.READY
    assert len(bench.messages(given_up)) == 1


def test_a_message_that_the_broker_gave_up_is_promised_again_and_may_be_claimed_at_once(bench: Bench) -> None:
    step_id = bench.submit()
    bench.set(step_id, run_after=func.now() + text("interval '1 hour'"), dispatched_at=func.now())
    letter_id = broker_letter(bench, job_id=bench.job_of(step_id).id, step_id=step_id)

    letter = replay(bench, letter_id)

    assert letter.resolution == Resolution.REPLAYED
    assert [message.published_at for message in bench.messages(step_id)] == [None, None]
    assert bench.claimed(step_id).attempt == 1


def test_a_message_whose_step_runs_meanwhile_is_not_sent_again(bench: Bench) -> None:
    step_id = bench.submit()
    bench.claimed(step_id)
    letter_id = broker_letter(bench, job_id=bench.job_of(step_id).id, step_id=step_id)

    assert replay(bench, letter_id).resolution == Resolution.REPLAYED
    assert len(bench.messages(step_id)) == 1


def without_a_job(bench: Bench) -> UUID:
    return broker_letter(bench)


def of_an_erased_job(bench: Bench) -> UUID:
    step_id = give_up(bench)
    with bench.session() as session:
        session.execute(delete(Job).where(Job.id == bench.job_of(step_id).id))
    return the_letter(bench).id


@pytest.mark.parametrize("letter_of", [without_a_job, of_an_erased_job])
def test_a_letter_without_a_job_cannot_be_replayed_and_can_be_discarded(
    bench: Bench, letter_of: Callable[[Bench], UUID]
) -> None:
    letter_id = letter_of(bench)

    with pytest.raises(Conflict) as refused:
        replay(bench, letter_id)
    with bench.session() as session:
        dead_letters.discard(session, letter_id, by=SOMEBODY)

    assert refused.value.code == "not_replayable"
    assert the_letter(bench).resolution == Resolution.DISCARDED


def test_what_was_dealt_with_in_one_way_is_not_dealt_with_in_the_other(bench: Bench) -> None:
    give_up(bench)
    give_up(bench)
    replayed, discarded = (letter.id for letter in letters(bench))
    replay(bench, replayed)

    def discard(letter_id: UUID) -> None:
        with bench.session() as session:
            dead_letters.discard(session, letter_id, by=SOMEBODY)

    discard(discarded)
    discard(discarded)
    with pytest.raises(Conflict) as not_replayed:
        replay(bench, discarded)
    with pytest.raises(Conflict) as not_discarded:
        discard(replayed)

    refusals = [not_replayed.value, not_discarded.value]
    assert [(each.code, each.facts["resolution"]) for each in refusals] == [
        ("letter_resolved", "discarded"),
        ("letter_resolved", "replayed"),
    ]


def test_options_are_for_jobs_that_read_a_document(bench: Bench, given_up: UUID) -> None:
    with pytest.raises(Invalid):
        replay(bench, the_letter(bench).id, {"ocr": False})

    assert the_letter(bench).resolved_at is None


def replay_all(bench: Bench, wanted: LetterFilter, confirm: int | None) -> Outcome:
    return replays.replay_all(
        bench.stores.sessions, bench.tenant_id, wanted, confirm=confirm, settings=SETTINGS, by=SOMEBODY
    )


def test_all_letters_of_a_kind_are_replayed_once_their_number_is_confirmed(bench: Bench) -> None:
    steps = [give_up(bench) for _ in range(3)]
    other = give_up(bench, SluiceError("Needs a password.", code="encrypted"))
    kind = LetterFilter(signature=letters(bench)[-1].signature)
    # Of the same kind, and without a job: it cannot be replayed.
    unreadable = broker_letter(bench, signature=kind.signature)

    with pytest.raises(Invalid, match="filter is empty"):
        replay_all(bench, LetterFilter(), 4)
    for confirm, code in ((None, "confirmation_needed"), (3, "confirmation_mismatch")):
        with pytest.raises(Conflict) as refused:
            replay_all(bench, kind, confirm)
        assert (refused.value.code, refused.value.facts["matching"]) == (code, 4)
    outcome = replay_all(bench, kind, 4)

    assert outcome == Outcome(matching=4, changed=3, skipped=1)
    assert {letter.id for letter in letters(bench, resolved=False)} == {
        unreadable,
        *(letter.id for letter in letters(bench) if letter.step_id == other),
    }
    assert {letter.resolution for letter in letters(bench, resolved=True)} == {Resolution.REPLAYED}
    assert [bench.job_of(step).state for step in (*steps, other)] == [JobState.QUEUED] * 3 + [JobState.FAILED]
    assert recorded(bench) == ["dead_letters.replay", "dead_letters.replay.done"]


def test_all_letters_of_a_kind_are_discarded_once_their_number_is_confirmed(bench: Bench) -> None:
    steps = [give_up(bench) for _ in range(3)]
    kind = LetterFilter(signature=the_kind(bench))

    outcome = replays.discard_all(bench.stores.sessions, bench.tenant_id, kind, confirm=3, by=SOMEBODY)

    assert outcome == Outcome(3, 3, 0)
    assert {letter.resolution for letter in letters(bench)} == {Resolution.DISCARDED}
    assert {bench.job_of(step).state for step in steps} == {JobState.FAILED}
    assert recorded(bench) == ["dead_letters.discard", "dead_letters.discard.done"]


def the_kind(bench: Bench) -> str:
    (kind,) = {letter.signature for letter in letters(bench)}
    return kind


def test_letters_of_nobody_are_seen_over_all_tenants_alone_and_others_are_not_seen_there(
    bench: Bench, given_up: UUID
) -> None:
    mine = the_letter(bench).id
    nobodys = broker_letter(bench)
    with bench.as_dispatcher() as session:
        session.execute(update(DeadLetter).where(DeadLetter.id == nobodys).values(tenant_id=None))

    def seen() -> set[UUID]:
        with bench.as_dispatcher() as session:
            found = dead_letters.page(session, LetterFilter(), Owner.NOBODY, resolved=False, limit=1000)
            return {letter.id for letter in found}

    assert nobodys in seen()
    assert mine not in seen()
    assert [letter.id for letter in letters(bench)] == [mine]
    with bench.as_dispatcher() as session, pytest.raises(DeadLetterNotFound):
        dead_letters.get(session, mine, Owner.NOBODY)
    with bench.session() as session, pytest.raises(DeadLetterNotFound):
        dead_letters.get(session, nobodys, Owner.NOBODY)
    with bench.as_dispatcher() as session:
        dead_letters.discard(session, nobodys, Owner.NOBODY, by=SOMEBODY)
    assert nobodys not in seen()


def test_pages_of_letters_show_each_once(bench: Bench) -> None:
    steps = [give_up(bench) for _ in range(5)]

    with bench.session() as session:
        first = dead_letters.page(session, LetterFilter(), limit=3)
        rest = dead_letters.page(session, LetterFilter(), before=first[-1].id, limit=3)

        assert [letter.step_id for letter in (*first, *rest)] == steps[::-1]
        assert dead_letters.page(session, LetterFilter(job_id=uuid4()), limit=3) == []
    with bench.session() as session:
        query = select(func.count()).select_from(DeadLetter)
        assert session.scalar(query) == 5
