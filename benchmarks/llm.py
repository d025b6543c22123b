"""LLM with the layers of a 0.5-billion model on two threads, in turns with llama-cpp-python's own server.

The weights are random (tests/gguf_models.py): speed is that of a real model of this shape, the text is nonsense.
"""

from __future__ import annotations

import itertools
import os
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.llm_alone import least_seconds
from benchmarks.llm_clients import Timed, ask, percentile, together
from benchmarks.llm_peer import HOME, llama_cpp_server
from benchmarks.report import Figure, at_least, at_most, median_ratio, publish
from infra.embedded.platform import Platform
from sluice.model_store.manifest import Version
from sluice.model_store.store import Description, ModelStore
from sluice.testing.service_process import ServiceProcess, running_service
from tests.gguf_models import HALF_BILLION, TINY, write_model

THREADS = 2
ROUNDS = 3
CLIENTS = 8
PROMPT_TOKENS = 130
ANSWER_TOKENS = 64
_fresh = itertools.count()


def run(platform: Platform) -> None:
    """Measure; the platform's own services stand still meanwhile."""
    for part in ("worker", "emb", "llm"):
        platform.stop(part)
    try:
        publish("llm", [*_speed(), *_life()], notes="0.5B shape, random weights, Q4_0, 2 threads, greedy")
    finally:
        for part in ("llm", "emb", "worker"):
            platform.start(part)


def _speed() -> list[Figure]:
    model = write_model(HOME / "half-billion.gguf", HALF_BILLION)
    settings = {
        "backend": "llama_cpp", "model_path": model, "threads": THREADS, "context_tokens": 4096, "queue_seconds": 300,
    }  # fmt: skip
    with running_service("llm", **settings) as ours:
        figures = [*_decoding(ours.url), *_long_prompt(ours.url), *_shared_beginning(ours.url), *_open_streams(ours)]
        with llama_cpp_server(model, THREADS) as theirs:
            figures += _against(ours.url, theirs)
            figures += _beside_llama_cpp(ours.url, model)
    return figures


def _decoding(url: str) -> list[Figure]:
    """Tokens a second of running answers, without their prompts: alone and eight together, in turns."""
    alone, eight = [], []
    for _ in range(ROUNDS):
        alone.append(_written([ask(url, "default", _prompt(20), 96)]))
        eight.append(_written(together(url, "default", [_prompt(20) for _ in range(8)], 96)[0]))
    return [
        Figure("decoding, one stream", statistics.median(alone), "tokens/s"),
        Figure("decoding, eight streams", statistics.median(eight), "tokens/s"),
        at_least("eight streams over one", median_ratio(eight, alone), "x", 1.8),
    ]


def _written(answers: list[Timed]) -> float:
    """Tokens a second while all of them were being written."""
    began, ended = max(a.pieces[0] for a in answers), min(a.pieces[-1] for a in answers)
    count = sum(began < piece <= ended for answer in answers for piece in answer.pieces)
    return count / (ended - began)


def _long_prompt(url: str) -> list[Figure]:
    """Pauses of four running answers: calm, and while another prompt of 2,000 tokens is read."""
    calm, disturbed, first = [], [], []
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(4) as clients:
            seen = threading.Semaphore(0)
            running = [clients.submit(ask, url, "default", _prompt(20), 600, on_piece=seen.release) for _ in range(4)]
            for _ in range(4 * 80):
                seen.acquire()
            begun = time.perf_counter()
            newcomer = ask(url, "default", _prompt(2000), 1)
            ended = newcomer.pieces[0]
            answers = [each.result() for each in running]
        first.append(newcomer.first)
        gaps = [(after, after - before) for a in answers for before, after in itertools.pairwise(a.pieces)]
        calm.append(percentile([gap for at, gap in gaps if at < begun and gap < 1], 95))
        disturbed.append(percentile([gap for at, gap in gaps if begun < at <= ended], 95))
    return [
        Figure("pause between tokens, four streams, p95", 1000 * statistics.median(calm), "ms"),
        Figure("the same while 2,000 tokens are read", 1000 * statistics.median(disturbed), "ms"),
        at_most("the latter over the former", median_ratio(disturbed, calm), "x", 2.5),
        Figure("first token of those 2,000", statistics.median(first), "s"),
    ]


def _shared_beginning(url: str) -> list[Figure]:
    """First token of a prompt of 400 tokens and a question, and of another question behind the same 400."""
    ratios, seconds = [], []
    for _ in range(ROUNDS):
        beginning = _prompt(400)
        fresh, again = (ask(url, "default", beginning + _prompt(12), 4).first for _ in range(2))
        ratios.append(fresh / again)
        seconds.append(again)
    return [
        Figure("first token behind a known beginning of 400", 1000 * statistics.median(seconds), "ms"),
        at_least("an unknown one over that", statistics.median(ratios), "x", 5.0),
    ]


def _open_streams(ours: ServiceProcess) -> list[Figure]:
    """/metrics and /healthz while 32 streams are open."""
    times: dict[str, list[float]] = {"/metrics": [], "/healthz": []}
    with ThreadPoolExecutor(32) as clients:
        running = [clients.submit(ask, ours.url, "default", _prompt(60), 64) for _ in range(32)]
        with httpx.Client(base_url=ours.url) as http:
            while not all(each.done() for each in running):
                for path, found in times.items():
                    began = time.perf_counter()
                    http.get(path).raise_for_status()
                    found.append(time.perf_counter() - began)
                    time.sleep(0.02)
        for each in running:
            each.result()
    return [
        at_most("/metrics beside 32 streams, p99", 1000 * percentile(times["/metrics"], 99), "ms", 100),
        at_most("/healthz beside 32 streams, p99", 1000 * percentile(times["/healthz"], 99), "ms", 50),
    ]


def _against(ours: str, theirs: str) -> list[Figure]:
    """Eight clients at once, prompts that nobody sent before, on both servers in turns."""
    rates: dict[str, list[float]] = {ours: [], theirs: []}
    firsts: dict[str, list[float]] = {ours: [], theirs: []}
    for _ in range(ROUNDS):
        for url in (ours, theirs):
            prompts = [_prompt(PROMPT_TOKENS) for _ in range(CLIENTS)]
            answers, rate = together(url, "default", prompts, ANSWER_TOKENS)
            rates[url].append(rate)
            firsts[url].append(statistics.mean(answer.first for answer in answers))
    return [
        Figure("eight clients", statistics.median(rates[ours]), "tokens/s"),
        Figure("eight clients, llama_cpp.server", statistics.median(rates[theirs]), "tokens/s"),
        at_least("ours over theirs", median_ratio(rates[ours], rates[theirs]), "x", 2.0),
        Figure("their mean first token", statistics.median(firsts[ours]), "s"),
        Figure("their mean first token, llama_cpp.server", statistics.median(firsts[theirs]), "s"),
        at_most("ours over theirs, first token", median_ratio(firsts[ours], firsts[theirs]), "x", 0.4),
    ]


def _beside_llama_cpp(url: str, model: Path) -> list[Figure]:
    """The same eight clients, in turns with llama.cpp alone doing their work: what a server can reach at most here."""
    rates, most = [], []
    for _ in range(ROUNDS):
        seconds = least_seconds(model, threads=THREADS, clients=CLIENTS, read=PROMPT_TOKENS, written=ANSWER_TOKENS)
        most.append(CLIENTS * ANSWER_TOKENS / seconds)
        prompts = [_prompt(PROMPT_TOKENS) for _ in range(CLIENTS)]
        rates.append(together(url, "default", prompts, ANSWER_TOKENS)[1])
    return [
        Figure("llama.cpp without a server, the same work", statistics.median(most), "tokens/s"),
        Figure("ours over that", median_ratio(rates, most), "x"),
    ]


def _life() -> list[Figure]:
    """Resident memory after ten exchanges of the model."""
    names = ("blue", "green")
    with TemporaryDirectory(dir=HOME) as folder:
        store = ModelStore(Path(folder))
        for seed, name in enumerate(names):
            file = write_model(HOME / f"{name}.gguf", TINY, seed=seed, name=name)
            store.add(file, Description(name=name, type="llm", backend="llama_cpp", version="1"))
        store.activate("default", Version(name="blue", version="1"))
        os.environ["SLUICE_MODELS_FOLDER"] = folder
        with running_service("llm", backend="manifest", threads=THREADS) as service:
            after_four = _exchange(service, names, 4)
            after_ten = _exchange(service, names, 10)
    return [
        Figure("resident after four exchanges", after_four / 1024**2, "MB"),
        at_most("after ten more, over that", after_ten / after_four, "x", 1.05),
    ]


def _exchange(service: ServiceProcess, names: tuple[str, str], times: int) -> float:
    for number in range(times):
        wanted = {"name": names[(number + 1) % 2], "version": "1"}
        httpx.post(f"{service.url}/v1/models/default:activate", json=wanted, timeout=60).raise_for_status()
        ask(service.url, "default", "hello", 8)
    while httpx.get(f"{service.url}/stats").json()["leaving"]:
        time.sleep(0.05)
    pages = Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _prompt(tokens: int) -> str:
    """Digits, each of which is a token; no two prompts begin alike."""
    source = random.Random(next(_fresh))  # noqa: S311 - no secret
    return "".join(source.choices("0123456789", k=tokens))
