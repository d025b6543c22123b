"""The forms of the built-in model side by side, and EMB while its models are exchanged."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.emb_clients import EmbeddingServer
from benchmarks.report import Figure, at_most, median_ratio
from sluice.embedding_models.built_in import LANGUAGES
from sluice.embedding_models.calibration_texts import shipped_texts
from sluice.embedding_models.judging import recall
from sluice.embedding_models.layout import BUILT_IN, TOKENIZER_FILE, read_model
from sluice.embedding_models.openvino_network import Network
from sluice.embedding_models.static_model import distill
from sluice.embedding_models.tokenizing import ModelTokenizer, TokenizedText
from sluice.model_store.store import Description, ModelStore
from sluice.testing.service_process import running_service

ROUNDS = 3
TEXTS = 200
BATCH = 8
BULK = 64
EXCHANGES = 10


def forms(passages: Sequence[str], threads: int) -> list[Figure]:
    """How many tokens a second each form reads, without HTTP, in turns."""
    model = read_model(BUILT_IN)
    tokenizer = ModelTokenizer(BUILT_IN / TOKENIZER_FILE, model.max_tokens, model.prompts)
    texts = sorted(tokenizer.tokenize(passages[:TEXTS], "document"), key=lambda text: len(text.ids))
    networks = {
        form.name: Network(BUILT_IN / form.network, form.precision, threads, model.pad_token) for form in model.forms
    }
    speeds: dict[str, list[float]] = {name: [] for name in networks}
    for turn in range(ROUNDS + 1):
        for name, network in networks.items():
            speed = _tokens_per_second(network, texts)
            # In the first turn shapes are prepared.
            if turn:
                speeds[name].append(speed)
    return [
        figure
        for name, values in speeds.items()
        for figure in (
            Figure(f"form {name}", statistics.median(values), "tokens/s"),
            Figure(f"form {name} over f32", median_ratio(values, speeds["f32"]), "x"),
        )
    ]


def exchanges(questions: Sequence[str], passages: Sequence[str], threads: int) -> list[Figure]:
    """The static model behind HTTP; and memory with the built-in one, before and after they took turns."""
    with TemporaryDirectory() as folder, TemporaryDirectory() as scratch:
        store, small = ModelStore(Path(folder)), Path(scratch) / "small"
        distilled = distill(BUILT_IN, small, shipped_texts(LANGUAGES), threads).dimension
        converted = read_model(BUILT_IN).dimension
        large = store.add(BUILT_IN, Description("large", "embed", "openvino", dimension=converted))
        static = store.add(small, Description("small", "embed", "static", dimension=distilled))
        with running_service("emb", variables={"SLUICE_MODELS_FOLDER": folder}, threads=threads) as service:
            server, sizes = EmbeddingServer(service.url, "default"), []
            for number in range(EXCHANGES + 1):
                store.activate("default", (large, static)[number % 2].key)
                server.reload()
                server.embed(passages[:BULK])
                if number % 2 == 0:
                    sizes.append(resident(service.process.pid))
                if number == 1:
                    found = list(_of_static(server, questions, passages))
    return [*found, at_most(f"memory after {EXCHANGES} exchanges over before", sizes[-1] / sizes[0], "x", 1.05)]


def resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _of_static(server: EmbeddingServer, questions: Sequence[str], passages: Sequence[str]) -> Iterator[Figure]:
    vectors, seconds = server.embed_all(passages, size=BULK, clients=2)
    asked, _ = server.embed_all(questions, size=BULK, clients=2)
    yield Figure("static model, bulk over HTTP", len(passages) / seconds, "texts/s")
    yield Figure("recall@10 of the static model", recall(asked, vectors) * 100, "%")


def _tokens_per_second(network: Network, texts: Sequence[TokenizedText]) -> float:
    began = time.perf_counter()
    for start in range(0, len(texts), BATCH):
        network.embed(texts[start : start + BATCH])
    return sum(len(text.ids) for text in texts) / (time.perf_counter() - began)
