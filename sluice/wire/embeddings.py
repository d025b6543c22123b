"""EMB's HTTP contract: OpenAI's embeddings, with our extensions."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

InputType = Literal["query", "document"]

NonEmpty = Annotated[str, Field(min_length=1)]

MAX_TEXTS = 2048


def _as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


class EmbeddingRequest(BaseModel):
    """`POST /v1/embeddings`."""

    model_config = ConfigDict(extra="forbid")

    model: str
    input: Annotated[list[NonEmpty], BeforeValidator(_as_list)] = Field(
        min_length=1, max_length=MAX_TEXTS, description="A string or a list of strings"
    )
    encoding_format: Literal["float", "base64"] = "float"
    input_type: InputType = Field(default="document", description="Extension: a query goes before waiting documents")
    dimensions: int | None = Field(default=None, description="Must be the dimension of the model when given")
    user: str | None = Field(default=None, description="Of OpenAI's shape; not used")


class EmbeddingItem(BaseModel):
    """The vector of one text: numbers, or base64 of little-endian 32-bit floats."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """The answer of `POST /v1/embeddings`."""

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    model_version: str = Field(description="Extension: short hash of weights and configuration")
    usage: EmbeddingUsage
    truncated: list[int] = Field(default=[], description="Extension: indexes of texts longer than the model reads")


class EmbeddingModelCard(BaseModel):
    """A model that EMB serves; everything behind `owned_by` is an extension."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "sluice"
    version: str
    dimension: int
    max_tokens: int
    languages: list[str] | None = None


class EmbeddingModelList(BaseModel):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[EmbeddingModelCard]


def vector_to_base64(little_endian: bytes) -> str:
    """A vector of little-endian 32-bit floats as it stands in a response."""
    return base64.b64encode(little_endian).decode("ascii")


def vector_from_base64(encoded: str) -> list[float]:
    """The numbers of a vector that `vector_to_base64` wrote; `ValueError` if it did not."""
    content = base64.b64decode(encoded, validate=True)
    if len(content) % 4:
        raise ValueError(f"{len(content)} bytes are no vector of 32-bit floats.")
    return list(struct.unpack(f"<{len(content) // 4}f", content))
