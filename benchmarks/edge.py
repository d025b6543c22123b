"""What nginx costs: the wait for the first event of an answer, in pairs with and without it, and memory for 1 GB."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from httpx_sse import connect_sse

from benchmarks.report import Figure, at_most, publish
from benchmarks.subject import SAMPLES, Tenant
from infra.embedded.platform import Platform

PAIRS = 100
MB = 1_000_000
GIGABYTE = 1024**3
PIECE = 1024**2
QUESTION = {"question": "What is a virtual package?"}


def run(platform: Platform) -> None:
    """Measure, print, write."""
    tenant = Tenant(platform)
    tenant.ingest([SAMPLES / "debian-faq.kernel.en.html"])
    url = tenant.variables["SLUICE_URL"]
    with httpx.Client(base_url=url, headers=tenant.http.headers, timeout=600) as through:
        direct, edge = _first_events(tenant.http, through)
        before, peaks = _upload(platform, tenant, through)
    publish(
        "edge",
        [
            Figure("first event, direct, median", statistics.median(direct), "ms"),
            Figure("first event, through nginx, median", statistics.median(edge), "ms"),
            at_most(
                "nginx adds, median of pairs",
                statistics.median(b - a for a, b in zip(direct, edge, strict=True)),
                "ms",
                2,
            ),
            Figure("api, idle", before["api"] / MB, "MB RSS"),
            Figure("api, 1 GB upload, peak", peaks["api"] / MB, "MB RSS"),
            Figure("nginx, 1 GB upload, peak", peaks["nginx"] / MB, "MB RSS"),
            at_most("nginx and api, 1 GB upload, peak", sum(peaks.values()) / MB, "MB", 200),
        ],
        notes=f"{PAIRS} pairs, each in another order than the one before; peaks are the kernel's own (VmHWM)",
    )


def _first_events(direct: httpx.Client, through: httpx.Client) -> tuple[list[float], list[float]]:
    times: dict[bool, list[float]] = {False: [], True: []}
    for client in (direct, through):
        _first_event(client)
    for number in range(PAIRS):
        for by_edge in (False, True) if number % 2 else (True, False):
            times[by_edge].append(_first_event(through if by_edge else direct))
    return times[False], times[True]


def _first_event(client: httpx.Client) -> float:
    started = time.perf_counter()
    with connect_sse(client, "POST", "/api/chat", json=QUESTION) as answer:
        events = answer.iter_sse()
        next(events)
        waited = (time.perf_counter() - started) * 1000
        for _ in events:
            pass
    return waited


def _upload(platform: Platform, tenant: Tenant, client: httpx.Client) -> tuple[dict[str, int], dict[str, int]]:
    """Memory before, and at most during, an upload that nobody then reads."""
    platform.stop("worker")
    # Anew: the kernel's peak is that of a whole life.
    platform.restart("api")
    before = {name: _memory(platform, name, "VmRSS") for name in ("api", "nginx")}
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="source_id"\r\n\r\n{tenant.source_id}\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{boundary}.txt"\r\n\r\n'
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head) + GIGABYTE + len(tail)),
    }
    accepted = client.post("/api/documents", content=_body(head, tail), headers=headers).raise_for_status().json()
    peaks = {name: _memory(platform, name, "VmHWM") for name in before}
    client.delete(f"/api/documents/{accepted['document_id']}").raise_for_status()
    platform.start("worker")
    return before, peaks


def _body(head: bytes, tail: bytes) -> Iterator[bytes]:
    line = b"The harbour master counts the ships. "
    piece = (line * (PIECE // len(line) + 1))[:PIECE]
    yield head
    for _ in range(GIGABYTE // PIECE):
        yield piece
    yield tail


def _memory(platform: Platform, name: str, field: str) -> int:
    return sum(_status_of(pid, field) for pid in platform.pids(name))


def _status_of(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (value,) = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(value) * 1024
