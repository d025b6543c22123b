"""Documents indexed under two aliases: each has all of them, and one that is away is said to be."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from services.workers import extraction
from services.workers.indexing import index_chunks
from services.workers.ingest import finalize, load_version
from services.workers.turns import Turn
from sluice.db.session import tenant_session
from sluice.documents import indexed
from sluice.documents.erase import Left, erase
from sluice.errors import TemporarilyUnavailable
from sluice.identity.roles import Role
from sluice.jobs.claims import OwnershipLost
from sluice.retrieval.fusion import RRF_K
from sluice.retrieval.search import Fusion, Question
from tests.e2e.running import Join
from tests.integration.indexed_world import IndexedWorld, sentences

QUESTION = "Who wrote down names in year 7?"


def left_behind(world: IndexedWorld) -> dict[str, int]:
    """How many documents each alias does not find by meaning, and how many any."""
    first, second = world.aliases
    with tenant_session(world.stores.sessions, world.tenant_id) as session:
        found = indexed.left_behind(session, world.models())
    return {
        "documents": sum(each.documents for each in found),
        "any": sum(each.outdated for each in found),
        "first": sum(each.by_alias[first] for each in found),
        "second": sum(each.by_alias[second] for each in found),
    }


def lose_points(world: IndexedWorld, version_id: UUID, collection: str, number: int) -> None:
    points, _ = world.stores.index.page(world.tenant_id, collection, None, 1000)
    some = [point.point_id for point in points if point.version_id == version_id][:number]
    world.stores.index.delete_points(world.tenant_id, collection, some)


# Ingest.


def test_every_alias_has_every_chunk_and_it_is_written_down_by_which_model(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"))

    chunks = len(world.chunks(version_id))
    assert chunks > 1
    assert world.points(version_id) == {
        f"chunks_{world.aliases[0]}_first-1": chunks,
        f"chunks_{world.aliases[1]}_second-1": chunks,
        world.stores.index.lexical: chunks,
    }
    assert world.noted(version_id) == world.models()
    assert left_behind(world) == {"documents": 1, "any": 0, "first": 0, "second": 0}


def test_one_alias_costs_what_it_did_and_asks_no_other_model(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the lighthouse"), aliases=1)

    chunks = len(world.chunks(version_id))
    assert world.points(version_id) == {
        f"chunks_{world.aliases[0]}_first-1": chunks,
        world.stores.index.lexical: chunks,
    }
    assert (len(world.first.embedded), world.second.embedded) == (chunks, [])
    assert world.noted(version_id) == {world.aliases[0]: world.models()[world.aliases[0]]}


def test_a_document_waits_for_an_alias_that_is_away_and_nothing_is_embedded_twice(world: IndexedWorld) -> None:
    version_id = world.upload(sentences("the mill"))
    world.second.available = False

    with pytest.raises(TemporarilyUnavailable, match="switched off"):
        world.ingest(version_id)

    assert not world.is_shown(version_id)
    assert world.noted(version_id) == {}
    world.second.available = True
    world.ingest(version_id)
    chunks = len(world.chunks(version_id))
    assert world.is_shown(version_id)
    assert len(world.first.embedded) == len(world.second.embedded) == chunks
    assert set(world.points(version_id).values()) == {chunks}


def test_a_model_that_moves_before_the_document_is_shown_is_caught_up_with(world: IndexedWorld) -> None:
    """Its collection is not there yet, and the last step must not wait for it to be made by somebody else."""
    version_id = world.upload(sentences("the quarry"))
    claim = world.claim(version_id)
    it = world.resources()
    with it.keeper.keep(claim) as lease:
        version = load_version(it, claim)
        extraction.extract(it, claim, lease, version)
        extraction.cut_into_chunks(it, claim, lease, version, Turn())
        index_chunks(it, claim, lease, version, 0, claim.checkpoint["chunks"])
        world.second.become(f"second-2-{world.mark}")
        finalize(it, claim, lease)

    chunks = len(world.chunks(version_id))
    assert world.is_shown(version_id)
    assert world.noted(version_id) == world.models()
    assert world.points(version_id)[f"chunks_{world.aliases[1]}_second-2"] == chunks


def test_a_worker_that_lost_its_step_writes_down_nothing(world: IndexedWorld) -> None:
    version_id = world.upload(sentences("the ferry"))
    zombie = world.claim(version_id)
    owner = world.claim(version_id)
    assert owner.attempt == zombie.attempt + 1

    with pytest.raises(OwnershipLost):
        world.run(zombie)

    assert world.noted(version_id) == {}
    assert not world.is_shown(version_id)
    world.run(owner)
    assert world.noted(version_id) == world.models()


# Search.


def test_a_search_asks_every_alias_and_fuses_their_ranks(world: IndexedWorld) -> None:
    world.ingested(sentences("the harbour"))

    found = world.search().find(world.tenant_id, Question(QUESTION, limit=50))

    second = f"dense:{world.aliases[1]}"
    assert found.degraded == []
    assert found.milliseconds.keys() == {"dense", second, "lexical", "total"}
    assert found.passages
    ranks = {
        leg: {
            chunk_id: rank
            for rank, (chunk_id, _) in enumerate(
                sorted(
                    ((p.chunk_id, p.scores[leg]) for p in found.passages if leg in p.scores),
                    key=lambda pair: -pair[1],
                ),
                start=1,
            )
        }
        for leg in ("dense", second, "words", "grams")
    }
    for leg in ranks.values():
        assert len(leg) == len(found.passages), "a leg lacks a passage that the others found"
    best = found.passages[0]
    expected = sum(1 / (RRF_K + ranks[leg][best.chunk_id]) for leg in ranks)
    assert best.score == pytest.approx(expected, rel=0.02)
    assert [p.score for p in found.passages] == sorted((p.score for p in found.passages), reverse=True)


def test_models_that_do_not_read_the_question_do_not_drag_its_words_down(world: IndexedWorld) -> None:
    world.ingested("Смотритель гавани считает корабли каждый вечер. " + sentences("the harbour"))

    found = world.search().find(world.tenant_id, Question("Кто считает корабли?"))
    plain = world.search().find(world.tenant_id, Question("Кто считает корабли?", fusion=Fusion.RRF))

    best = found.passages[0]
    assert (found.lang, "Смотритель" in best.text) == ("ru", True)
    assert best.score == pytest.approx(2 / (RRF_K + 1)), "the first by words and by grams, and no other vote"
    assert plain.passages[0].score > best.score


def test_scores_can_be_summed_over_several_aliases_if_that_is_asked_for(world: IndexedWorld) -> None:
    world.ingested(sentences("the harbour"))

    found = world.search().find(world.tenant_id, Question(QUESTION, fusion=Fusion.SUM))

    assert 0.5 < found.passages[0].score <= 1


def test_one_alias_is_searched_as_ever(world: IndexedWorld) -> None:
    world.ingested(sentences("the harbour"))

    found = world.search(aliases=1).find(world.tenant_id, Question(QUESTION))

    assert found.milliseconds.keys() == {"dense", "lexical", "total"}
    assert found.passages[0].scores.keys() == {"dense", "words", "grams"}
    assert found.passages[0].score > 2 / RRF_K, "normalized scores, not ranks"


def test_an_alias_that_is_away_is_named_and_the_others_answer(world: IndexedWorld) -> None:
    world.ingested(sentences("the harbour"))
    search = world.search()
    world.second.available = False

    without_second = search.find(world.tenant_id, Question(QUESTION, diverse=True))
    world.first.available, world.second.available = False, True
    without_first = search.find(world.tenant_id, Question(QUESTION, diverse=True))
    world.second.available = False
    without_both = search.find(world.tenant_id, Question(QUESTION))

    second = f"dense:{world.aliases[1]}"
    assert (without_second.degraded, without_first.degraded) == ([second], ["dense"])
    assert without_both.degraded == ["dense", second]
    assert without_second.passages[0].scores.keys() == {"dense", "words", "grams"}
    assert without_first.passages[0].scores.keys() == {second, "words", "grams"}
    assert without_both.passages[0].scores.keys() == {"words", "grams"}


def test_an_alias_under_which_nothing_is_indexed_yet_is_named_too(world: IndexedWorld) -> None:
    world.ingested(sentences("the harbour"), aliases=1)

    found = world.search().find(world.tenant_id, Question(QUESTION))

    assert found.degraded == [f"dense:{world.aliases[1]}"]
    assert found.passages


# Doctor, reindex, erase.


def test_a_point_that_one_alias_lost_is_missing_and_comes_back(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"))
    before = world.points(version_id)
    lose_points(world, version_id, world.collection(world.aliases[1], f"second-1-{world.mark}"), 2)

    assert world.doctor() == {"missing": 2}
    assert world.doctor(repair=True) == {}
    assert world.points(version_id) == before
    assert len(world.second.embedded) == len(world.chunks(version_id)), "the vectors were kept"


def test_points_under_an_alias_that_is_not_asked_any_more_are_orphans(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"))
    chunks = len(world.chunks(version_id))

    assert world.doctor(aliases=1) == {"orphaned": chunks}
    assert world.doctor(aliases=1, repair=True) == {}
    assert world.points(version_id)[f"chunks_{world.aliases[1]}_second-1"] == 0


def test_a_new_alias_has_left_every_document_behind_until_they_are_indexed_again(world: IndexedWorld) -> None:
    first, other = (world.ingested(sentences(of), aliases=1) for of in ("the harbour", "the mill"))
    assert left_behind(world) == {"documents": 2, "any": 2, "first": 0, "second": 2}
    chunks = len(world.chunks(first)) + len(world.chunks(other))

    assert world.doctor() == {"missing": chunks}
    assert left_behind(world)["any"] == 2, "looking changes nothing"
    assert world.doctor(repair=True) == {}

    assert left_behind(world) == {"documents": 2, "any": 0, "first": 0, "second": 0}
    assert world.noted(first) == world.noted(other) == world.models()


def test_a_model_that_moves_leaves_its_documents_behind_and_goes_back_to_them(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"))
    world.second.become(f"second-2-{world.mark}")

    assert left_behind(world) == {"documents": 1, "any": 1, "first": 0, "second": 1}
    assert world.doctor(repair=True) == {}
    assert left_behind(world)["any"] == 0
    # The points of the former model were in nobody's way, and are gone.
    assert world.points(version_id)[f"chunks_{world.aliases[1]}_second-1"] == 0


def test_documents_of_before_it_was_written_down_are_found_to_be_whole_by_the_doctor(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"))
    with tenant_session(world.stores.sessions, world.tenant_id) as session:
        for row in session.query(indexed.IndexedVersion).all():
            session.delete(row)
    assert left_behind(world)["any"] == 1

    assert world.doctor() == {}

    assert left_behind(world)["any"] == 0
    assert world.noted(version_id) == world.models()


def test_a_document_with_half_of_its_points_is_not_taken_for_whole(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"), aliases=1)
    world.doctor(repair=True)
    with tenant_session(world.stores.sessions, world.tenant_id) as session:
        for row in session.query(indexed.IndexedVersion).all():
            session.delete(row)
    lose_points(world, version_id, world.collection(world.aliases[1], f"second-1-{world.mark}"), 1)

    world.doctor()

    assert world.noted(version_id) == {}


def test_an_erased_document_leaves_nothing_under_any_alias(world: IndexedWorld) -> None:
    version_id = world.ingested(sentences("the harbour"))
    document_id = world.document_of(version_id)

    left = erase(world.stores.sessions, world.stores.objects, world.stores.index, world.tenant_id, document_id)

    assert left == Left(rows=0, points=0, objects=0)
    assert world.noted(version_id) == {}
    assert world.stores.index.count_document(world.tenant_id, document_id) == 0


def test_what_one_tenant_has_indexed_another_does_not_see(world: IndexedWorld, join: Join) -> None:
    world.ingested(sentences("the harbour"))
    stranger = join(f"Stranger {uuid4().hex}", Role.ADMIN)

    with tenant_session(world.stores.sessions, stranger.tenant_id) as session:
        assert indexed.left_behind(session, world.models()) == []
        assert session.query(indexed.IndexedVersion).all() == []
