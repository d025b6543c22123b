"""Tables of documents, from the source they belong to down to the chunk that search finds."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Computed, ForeignKey, Index, LargeBinary, String, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column

from sluice.db.base import CURRENT_TENANT, Base, Identified, TenantOwned, Timestamped


class Source(Identified, TenantOwned, Timestamped, Base):
    """A named collection of documents: what a question is asked of."""

    __tablename__ = "sources"

    name: Mapped[str] = mapped_column(String(200))

    __table_args__ = (UniqueConstraint("tenant_id", "name"),)


class Document(Identified, TenantOwned, Timestamped, Base):
    """Something people know by one name, whatever its bytes are today."""

    __tablename__ = "documents"

    source_id: Mapped[UUID] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"))
    # What a new upload must share to be a new version of this document: the caller's own id, else the file name.
    external_id: Mapped[str] = mapped_column(String(512))
    name: Mapped[str] = mapped_column(String(255))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String(100)), default=list, server_default="{}")
    # Search shows the chunks of this version and of no other.
    active_version_id: Mapped[UUID | None]
    # Set when erasing began: from then on nobody sees the document, even if a store is away.
    erased_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index(
            "uq_documents_external_id",
            "source_id",
            "external_id",
            unique=True,
            postgresql_where=text("erased_at IS NULL"),
        ),
        Index("ix_documents_tenant_created", "tenant_id", "created_at", "id"),
    )


class DocumentVersion(Identified, TenantOwned, Timestamped, Base):
    """One upload's bytes, and what was found in them."""

    __tablename__ = "document_versions"

    document_id: Mapped[UUID] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), index=True)
    source_id: Mapped[UUID]
    number: Mapped[int]
    content_hash: Mapped[str] = mapped_column(String(64))  # SHA-256, hex
    size: Mapped[int] = mapped_column(BigInteger)
    mime: Mapped[str] = mapped_column(String(120))
    object_key: Mapped[str]
    title: Mapped[str | None]
    lang: Mapped[str | None] = mapped_column(String(8))
    page_count: Mapped[int | None]
    chunk_count: Mapped[int | None]
    activated_at: Mapped[datetime | None]
    superseded_at: Mapped[datetime | None]
    # The version whose bytes this one reads again (another model, chunker or parser); cleared when it is shown.
    reread_of: Mapped[UUID | None]

    __table_args__ = (
        UniqueConstraint("document_id", "number"),
        # The same bytes live once in a source; this index is what settles twenty uploads at once.
        Index(
            "uq_document_versions_content",
            "source_id",
            "content_hash",
            unique=True,
            postgresql_where=text("superseded_at IS NULL AND reread_of IS NULL"),
        ),
    )


class Chunk(TenantOwned, Base):
    """A passage: a few sentences of one version, with where they stand on their pages."""

    __tablename__ = "chunks"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    document_id: Mapped[UUID] = mapped_column(ForeignKey("documents.id", ondelete="CASCADE"), index=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("document_versions.id", ondelete="CASCADE"))
    ordinal: Mapped[int]
    text: Mapped[str]
    text_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    token_count: Mapped[int]
    lang: Mapped[str] = mapped_column(String(8))
    page: Mapped[int | None]
    last_page: Mapped[int | None]
    heading_path: Mapped[list[str]] = mapped_column(ARRAY(String), default=list, server_default="{}")
    # [[start, end, page, x0, y0, x1, y1], ...]: characters of `text`, and their box in PDF points, origin bottom left.
    spans: Mapped[list[list[float]]] = mapped_column(JSONB, default=list, server_default="[]")
    # Without an index of its own: PostgreSQL may not use one under row-level security, because `@@` is not leakproof.
    words: Mapped[Any] = mapped_column(
        TSVECTOR,
        Computed(
            "CASE lang WHEN 'en' THEN to_tsvector('english', text) WHEN 'ru' THEN to_tsvector('russian', text) "
            "ELSE to_tsvector('simple', text) END",
            persisted=True,
        ),
        deferred=True,
    )

    __table_args__ = (
        UniqueConstraint("version_id", "ordinal"),
        Index("ix_chunks_text_hash", "tenant_id", "text_hash"),
    )


class CachedEmbedding(TenantOwned, Base):
    """A vector that was computed for this text by this model version, so that it need not be computed again."""

    __tablename__ = "embedding_cache"

    tenant_id: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True, server_default=text(CURRENT_TENANT)
    )
    text_hash: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    model_version: Mapped[str] = mapped_column(String(80), primary_key=True)
    # 32-bit floats, little endian.
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class IndexedVersion(TenantOwned, Base):
    """A version that is wholly in the index of an embedding alias, and by which version of a model.

    What the alias means may have moved on since: the document is then found by its words until it is indexed again.
    """

    __tablename__ = "indexed_versions"

    version_id: Mapped[UUID] = mapped_column(ForeignKey("document_versions.id", ondelete="CASCADE"), primary_key=True)
    alias: Mapped[str] = mapped_column(String(96), primary_key=True)
    model_version: Mapped[str] = mapped_column(String(80))
    indexed_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Upload(Identified, TenantOwned, Timestamped, Base):
    """A promise to put bytes straight into the object store: what the client said they would be."""

    __tablename__ = "uploads"

    source_id: Mapped[UUID] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(255))
    external_id: Mapped[str | None] = mapped_column(String(512))
    tags: Mapped[list[str]] = mapped_column(ARRAY(String(100)), default=list, server_default="{}")
    size: Mapped[int] = mapped_column(BigInteger)
    content_hash: Mapped[str] = mapped_column(String(64))
    object_key: Mapped[str]
    expires_at: Mapped[datetime]
