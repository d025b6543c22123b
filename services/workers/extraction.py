"""The first half of ingest: from the original to chunks in PostgreSQL."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, insert, update
from sqlalchemy.orm import Session

from services.workers.cut import Cut
from services.workers.lease import Lease
from services.workers.parsing.document import ParseOptions
from services.workers.parsing.sandbox import parse_document
from services.workers.resources import Resources
from services.workers.turns import Turn
from sluice.db.session import tenant_session
from sluice.documents import chunking
from sluice.documents.budget import measured_for
from sluice.documents.languages import detect
from sluice.documents.models import Chunk, DocumentVersion
from sluice.documents.reading import ReadingOptions
from sluice.documents.text import Block
from sluice.errors import DocumentUnreadable
from sluice.ids import derived_id
from sluice.jobs import claims
from sluice.jobs.claims import Claim
from sluice.kill_points import KillPoint, strike
from sluice.object_store import extract_key

_ROWS: Final = 500
_BLOCKS_PER_PROGRESS: Final = 5_000
_BETWEEN_REPORTS: Final = 0.5


def extract(it: Resources, claim: Claim, lease: Lease, version: DocumentVersion) -> None:
    """Read the original in a child process and store its text; checkpoint `extracted`."""
    with tempfile.TemporaryDirectory(prefix="sluice-ingest-") as folder:
        original, blocks, packed = (Path(folder) / name for name in ("original", "blocks.jsonl", "blocks.jsonl.gz"))
        _download(it, version, original)
        try:
            report = parse_document(
                original,
                version.mime,
                ParseOptions.of(it.ingest, ReadingOptions.of(claim.options, version.mime)),
                output=blocks,
                on_progress=_Reporter(it, claim, "extract"),
                should_stop=lease.should_stop,
            )
        finally:
            # Says why reading was stopped, if it was.
            lease.check()
        with blocks.open("rb") as plain, gzip.open(packed, "wb", compresslevel=4) as archive:
            shutil.copyfileobj(plain, archive)
        with packed.open("rb") as body:
            it.store.put(extract_key(claim.tenant_id, version.document_id, version.id), body, "application/gzip")
    with tenant_session(it.sessions, claim.tenant_id) as session:
        claims.checkpoint(session, claim, extracted={"characters": report.characters, "blocks": report.blocks})
        session.execute(
            update(DocumentVersion)
            .where(DocumentVersion.id == version.id)
            .values(title=report.title, page_count=report.pages)
        )
    strike(KillPoint.AFTER_EXTRACT, claim.document_id)


def cut_into_chunks(it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, turn: Turn) -> bool:
    """Cut the stored text into chunks and write them down, not shown yet; checkpoint `chunks`, their number.

    A long text is cut stretch by stretch, a checkpoint after each; False when the turn is over and some are left.
    """
    cut = Cut.of(claim.checkpoint)
    total = claim.checkpoint["extracted"]["blocks"]
    count_tokens = _token_counter(it)
    with closing(_stored_blocks(it, claim, lease, version, skip=cut.blocks)) as blocks:
        while True:
            before = cut.blocks
            pieces = chunking.chunk(
                cut.stretch(blocks),
                count_tokens=count_tokens,
                detect=detect,
                max_tokens=it.ingest.chunk_tokens,
                overlap_tokens=it.ingest.chunk_overlap_tokens,
                headings=cut.headings,
                first_ordinal=cut.chunks,
            )
            with tenant_session(it.sessions, claim.tenant_id) as session:
                _write_down(session, lease, version, pieces, cut)
                claims.checkpoint(session, claim, cut=cut.as_checkpoint())
                if cut.blocks >= total or cut.blocks == before:
                    _conclude(session, claim, version, cut)
                    break
            if turn.is_over():
                return False
    strike(KillPoint.AFTER_CHUNK, claim.document_id)
    return True


def _write_down(
    session: Session, lease: Lease, version: DocumentVersion, pieces: Iterator[chunking.Chunk], cut: Cut
) -> None:
    # What an attempt before this one may have left.
    session.execute(
        delete(Chunk)
        .where(Chunk.version_id == version.id, Chunk.ordinal >= cut.chunks)
        .execution_options(synchronize_session=False)
    )
    for rows in _batched((_row(version, piece) for piece in pieces), _ROWS):
        session.execute(insert(Chunk), rows)
        cut.count(row["lang"] for row in rows)
        lease.check()


def _conclude(session: Session, claim: Claim, version: DocumentVersion, cut: Cut) -> None:
    if cut.chunks == 0:
        raise DocumentUnreadable("The file has no text to search in.", code="no_text")
    claims.checkpoint(session, claim, chunks=cut.chunks)
    session.execute(
        update(DocumentVersion)
        .where(DocumentVersion.id == version.id)
        .values(lang=cut.usual_language(), chunk_count=cut.chunks)
    )


def _download(it: Resources, version: DocumentVersion, target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        for piece in it.store.pieces(version.object_key):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != version.content_hash:
        raise DocumentUnreadable(
            "The stored original is not what was uploaded (its SHA-256 differs): upload the file again.",
            code="original_damaged",
        )


def _stored_blocks(
    it: Resources, claim: Claim, lease: Lease, version: DocumentVersion, *, skip: int
) -> Generator[Block, None, None]:
    total = claim.checkpoint["extracted"]["blocks"]
    report = _Reporter(it, claim, "chunk")
    with tempfile.TemporaryFile(prefix="sluice-blocks-") as packed:
        for piece in it.store.pieces(extract_key(claim.tenant_id, version.document_id, version.id)):
            packed.write(piece)
        packed.seek(0)
        with gzip.open(packed, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if number % _BLOCKS_PER_PROGRESS == 0:
                    lease.check()
                    report(number, total)
                if number >= skip:
                    yield Block.from_json(line)


def _token_counter(it: Resources) -> Callable[[Sequence[str]], list[int]]:
    tokenizer = it.tokenizer()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    return measured_for(it.embedding.languages, count)


def _chunk_id(version: DocumentVersion, ordinal: int) -> UUID:
    """The same for the same bytes, except where they are read again: the chunks of before are shown meanwhile."""
    again = (version.id,) if version.reread_of is not None else ()
    return derived_id(version.document_id, version.content_hash, ordinal, chunking.CHUNKER_VERSION, *again)


def _row(version: DocumentVersion, piece: chunking.Chunk) -> dict[str, Any]:
    return {
        "id": _chunk_id(version, piece.ordinal),
        "tenant_id": version.tenant_id,
        "document_id": version.document_id,
        "version_id": version.id,
        "ordinal": piece.ordinal,
        "text": piece.text,
        "text_hash": hashlib.sha256(piece.text.encode()).digest(),
        "token_count": piece.token_count,
        "lang": piece.lang,
        "page": piece.page,
        "last_page": piece.last_page,
        "heading_path": list(piece.heading_path),
        "spans": [[span.start, span.end, span.page, *span.box] for span in piece.spans],
    }


def _batched(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(rows)
    while batch := list(islice(iterator, size)):
        yield batch


@dataclasses.dataclass
class _Reporter:
    """Writes progress down, at most twice a second."""

    it: Resources
    claim: Claim
    step: str
    last: float = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.last < _BETWEEN_REPORTS and done != total:
            return
        self.last = now
        with tenant_session(self.it.sessions, self.claim.tenant_id) as session:
            claims.progress(session, self.claim, self.step, done, total)
