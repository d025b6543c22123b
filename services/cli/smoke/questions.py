"""Checks of search and chat: by meaning, by words, and as a cited answer that streams."""

from __future__ import annotations

import time

from services.cli.answers import Answer, ask
from services.cli.smoke.visit import Json, Visit, failure


def knn(visit: Visit) -> Json:
    """A question that shares no word with the text finds it by its vector."""
    similarity = _scores(visit, visit.fact.paraphrase, {"dense"})["dense"]
    return {"similarity": round(similarity, 2)}


def hybrid(visit: Visit) -> Json:
    """Vectors and words find the passage together, in English; words are enough in Russian."""
    scores = _scores(visit, visit.fact.question, {"dense", "words"})
    _scores(visit, visit.fact.question_in_russian, {"words"})
    return {leg: round(score, 2) for leg, score in scores.items()}


def chat(visit: Visit) -> Json:
    """The answer streams, cites our document, and comes to its end."""
    asked = time.perf_counter()
    seen: Json = {}
    names: list[str] = []
    answer = Answer()
    for name, data in ask(visit.client, visit.fact.question, [str(visit.source_id)], within=visit.patience):
        seen.setdefault("first_event_milliseconds", _since(asked))
        if name == "text.delta":
            seen.setdefault("first_word_milliseconds", _since(asked))
        names.append(name)
        visit.conversation_id = data.get("conversation_id", visit.conversation_id)
        answer.take(name, data)
    if not names or names[0] != "message.start":
        raise failure(f"The stream began with {names[0] if names else 'nothing'}, not with message.start.")
    if names[-1] != "message.end":
        raise failure(f"The stream broke off after {names[-1]}. Does a proxy cut streams short?")
    if answer.finish_reason not in ("stop", "length") or not answer.text:
        raise failure(f"There is no answer: finish_reason is {answer.finish_reason}.")
    cited = {citation["place"]["document_id"] for citation in answer.citations}
    if visit.uploads[0].document_id not in cited:
        raise failure(f"The answer does not cite our document: {answer.text!r}")
    return {**seen, "citations": len(answer.citations)}


def _scores(visit: Visit, question: str, legs: set[str]) -> dict[str, float]:
    """The scores of our passage for this question; each of these legs must have found it."""
    found, ours = visit.search(question)
    if found["degraded"]:
        raise failure(f"The search went without {', '.join(found['degraded'])}.")
    if ours is None:
        raise failure(f"The document was not found by {question!r}.")
    if absent := sorted(legs - ours["scores"].keys()):
        raise failure(f"The document was found by {question!r}, but not by {' and '.join(absent)}.")
    scores: dict[str, float] = ours["scores"]
    return scores


def _since(moment: float) -> float:
    return round((time.perf_counter() - moment) * 1000, 1)
