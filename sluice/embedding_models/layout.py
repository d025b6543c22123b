"""What a converted model's folder holds: `model.json`, `tokenizer.json`, one network per form, and a self-test."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sluice.errors import SluiceError
from sluice.wire.embeddings import InputType

FormName = Literal["int8", "int8_weights", "bf16", "f32"]

MODEL_FILE: Final = "model.json"
TOKENIZER_FILE: Final = "tokenizer.json"
PROBE_FILE: Final = "probe.json"
STATIC_FILE: Final = "static.json"
BUILT_IN: Final = Path(sys.prefix) / "share" / "sluice" / "built-in-embedding-model"
"""Where the built-in model is put by `make setup`, and when the image of EMB is built."""


Content = TypeVar("Content", bound=BaseModel)


class NotConverted(SluiceError):
    """The folder holds no converted model."""

    code = "not_converted"


class Quality(BaseModel):
    """How near vectors are to those of the original network in 32 bits, on texts that it was not calibrated on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cosine_mean: float
    cosine_p5: float
    recall_at_10: float
    """Share of questions whose passage is among the ten nearest."""


class Form(BaseModel):
    """One way to run the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: FormName
    network: str = Field(pattern=r"^[a-z0-9_]+\.xml$")
    precision: Literal["f32", "bf16"] = Field(description="In what the network computes where it is not quantized")
    quality: Quality


class ConvertedModel(BaseModel):
    """`model.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    source: str
    vectors: str = Field(
        pattern=r"^[0-9a-f]{12}$", description="The same for models whose vectors may be compared: by source and recipe"
    )
    dimension: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    pad_token: int = Field(ge=0)
    prompts: dict[InputType, str]
    languages: tuple[str, ...]
    forms: Annotated[tuple[Form, ...], Field(min_length=1)]


class StaticFacts(BaseModel):
    """`static.json`, of a model that `sluice models distill` has made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    vectors: str = Field(pattern=r"^[0-9a-f]{12}$")
    dimension: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    languages: tuple[str, ...]
    recall_at_10: float
    recall_at_10_of_source: float


class Probe(BaseModel):
    """Texts and the vectors that the original makes of them: what a form must still do on the machine it runs on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    texts: tuple[str, ...]
    vectors: str = Field(description="Base64 of little-endian 32-bit floats, (texts, dimension)")

    def content(self) -> bytes:
        """The vectors' bytes."""
        return base64.b64decode(self.vectors)


def read_model(folder: Path) -> ConvertedModel:
    """What is in the folder, or `NotConverted`."""
    return _read(folder / MODEL_FILE, ConvertedModel)


def read_probe(folder: Path) -> Probe:
    """The self-test in the folder, or `NotConverted`."""
    return _read(folder / PROBE_FILE, Probe)


def read_static(folder: Path) -> StaticFacts:
    """What is in the folder of a static model, or `NotConverted`."""
    return _read(folder / STATIC_FILE, StaticFacts)


def is_converted(folder: Path) -> bool:
    """Whether a converted model is there."""
    return (folder / MODEL_FILE).is_file()


def write(file: Path, content: BaseModel) -> None:
    """Write `model.json` or `probe.json`."""
    file.write_text(json.dumps(content.model_dump(mode="json"), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _read(file: Path, kind: type[Content]) -> Content:
    try:
        return kind.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise NotConverted(f"{file} is not what `sluice models` writes: {error}") from error
