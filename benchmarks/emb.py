"""EMB over HTTP beside raw `SentenceTransformer.encode`, beside infinity-emb, and by itself under load."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.emb_clients import EmbeddingServer, percentile
from benchmarks.emb_models import exchanges, forms, resident
from benchmarks.emb_peer import PeerMissingError, infinity
from benchmarks.emb_texts import questions_and_answers
from benchmarks.report import Figure, at_least, at_most, median_ratio, publish
from infra.embedded.platform import Platform
from sluice.embedding_models.built_in import source_folder
from sluice.embedding_models.judging import recall
from sluice.testing.service_process import ServiceProcess, running_service

ROUNDS = 3
CLIENTS = 8
BULK = 64
SHORT_LIST = 16
PEER_TEXTS = 400


def run(platform: Platform) -> None:
    """Measure; the platform's own services stand still meanwhile."""
    for part in ("worker", "emb", "llm"):
        platform.stop(part)
    try:
        figures, notes = measured()
        publish("emb", figures, notes=notes)
    finally:
        for part in ("llm", "emb", "worker"):
            platform.start(part)


def measured() -> tuple[list[Figure], str]:
    """All figures, and what they were measured on."""
    threads = len(os.sched_getaffinity(0))
    questions, passages, origin = questions_and_answers()
    with running_service("emb", threads=threads) as service:
        server = EmbeddingServer(service.url, "default")
        figures = [
            *_against_the_library(server, questions, passages, threads),
            *_clients(server, passages),
            *_questions(server, passages),
        ]
    with running_service("emb", threads=threads) as fresh:
        figures += _memory(fresh, EmbeddingServer(fresh.url, "default"), passages)
    figures += forms(passages, threads)
    figures += exchanges(questions, passages, threads)
    peer, why_not = _against_infinity(passages, threads)
    notes = f"{len(passages)} {origin}, {threads} threads on both sides, medians of {ROUNDS} turns{why_not}"
    return figures + peer, notes


def _against_the_library(
    server: EmbeddingServer, questions: Sequence[str], passages: Sequence[str], threads: int
) -> list[Figure]:
    torch.set_num_threads(threads)
    library = SentenceTransformer(str(source_folder()), device="cpu", local_files_only=True)
    library.encode(list(passages[:32]))
    server.embed_all(passages, size=BULK, clients=2)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        vectors, seconds = server.embed_all(passages, size=BULK, clients=2)
        ours.append(len(passages) / seconds)
        began = time.perf_counter()
        original = library.encode(list(passages), batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        theirs.append(len(passages) / (time.perf_counter() - began))
    asked, _ = server.embed_all(questions, size=BULK, clients=2)
    originally = library.encode(list(questions), normalize_embeddings=True, show_progress_bar=False)
    found, found_by_library = recall(asked, vectors), recall(originally, np.asarray(original))
    return [
        Figure("raw SentenceTransformer.encode", statistics.median(theirs), "texts/s"),
        Figure("EMB, bulk over HTTP", statistics.median(ours), "texts/s"),
        at_least("EMB over raw encode", median_ratio(ours, theirs), "x", 3.0),
        Figure("recall@10 of the library", found_by_library * 100, "%"),
        at_least("recall@10 of EMB less the library's", (found - found_by_library) * 100, "points", -0.5),
    ]


def _clients(server: EmbeddingServer, passages: Sequence[str]) -> list[Figure]:
    one, many = [], []
    for _ in range(ROUNDS):
        one.append(len(passages) / server.embed_all(passages, size=SHORT_LIST, clients=1)[1])
        many.append(len(passages) / server.embed_all(passages, size=SHORT_LIST, clients=CLIENTS)[1])
    return [
        Figure(f"one client, lists of {SHORT_LIST}", statistics.median(one), "texts/s"),
        Figure(f"{CLIENTS} clients, lists of {SHORT_LIST}", statistics.median(many), "texts/s"),
        at_least(f"{CLIENTS} clients over one", median_ratio(many, one), "x", 0.95),
    ]


def _questions(server: EmbeddingServer, passages: Sequence[str]) -> list[Figure]:
    server.question_milliseconds(10)
    idle = server.question_milliseconds(100)
    with server.saturated(passages, clients=CLIENTS, size=BULK):
        busy = server.question_milliseconds(60, pause=0.05)
        health = server.health_milliseconds(200, pause=0.02)
    return [
        at_most("question, idle, p50", statistics.median(idle), "ms", 8),
        at_most("question beside bulk work, p50", statistics.median(busy), "ms", 50),
        Figure("question beside bulk work, p95", percentile(busy, 95), "ms"),
        at_most("/healthz beside bulk work, p99", percentile(health, 99), "ms", 50),
    ]


def _memory(service: ServiceProcess, server: EmbeddingServer, passages: Sequence[str]) -> list[Figure]:
    chance = random.Random(7)  # noqa: S311 - the same mixture in each run
    sizes = {}
    for number in range(1, 201):
        server.embed([chance.choice(passages) for _ in range(chance.randint(1, 40))])
        if number in {20, 200}:
            sizes[number] = resident(service.process.pid)
    return [
        Figure("memory after 20 mixed batches", sizes[20] / 1e6, "MB RSS"),
        at_most("memory after 200 over after 20", sizes[200] / sizes[20], "x", 1.1),
    ]


def _against_infinity(passages: Sequence[str], threads: int) -> tuple[list[Figure], str]:
    ours, theirs = [], []
    # The peer takes its time.
    some = passages[:PEER_TEXTS]
    try:
        with infinity(threads) as peer, running_service("emb", threads=threads) as service:
            server = EmbeddingServer(service.url, "default")
            for each in (peer, server):
                each.embed_all(some[:128], size=SHORT_LIST, clients=CLIENTS)
            for _ in range(ROUNDS):
                ours.append(len(some) / server.embed_all(some, size=SHORT_LIST, clients=CLIENTS)[1])
                theirs.append(len(some) / peer.embed_all(some, size=SHORT_LIST, clients=CLIENTS)[1])
    except PeerMissingError as reason:
        return [], f"; infinity-emb was not measured: {reason}"
    return [
        Figure(f"infinity-emb, {CLIENTS} clients", statistics.median(theirs), "texts/s"),
        at_least("EMB over infinity-emb", median_ratio(ours, theirs), "x", 4.0),
    ], ""
