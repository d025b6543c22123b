"""The way to `conversion`, whose libraries are an extra of their own and take seconds to import."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from sluice.embedding_models.calibration_texts import Texts
from sluice.embedding_models.layout import ConvertedModel, FormName
from sluice.errors import SluiceError
from sluice.model_store.files import digest

RECIPE: Final = 1
"""Another number means other vectors: raise it when anything in `conversion` changes them."""

_DIGITS: Final = 12

Report = Callable[[str], None]


class ConverterMissing(SluiceError):
    """Converting needs the extra `models`."""

    code = "converter_missing"


class _Conversion(Protocol):
    def convert(
        self,
        folder: Path,
        target: Path,
        *,
        vectors: str,
        texts: Texts,
        languages: Sequence[str],
        threads: int,
        report: Report,
        required: FormName,
    ) -> ConvertedModel: ...


def vectors_of(folder: Path, texts: Texts) -> str:
    """What a conversion will write as `vectors`: the same for the same source, texts and recipe."""
    made_of = (digest(folder), texts.digest, str(RECIPE))
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:_DIGITS]


def convert(
    folder: Path,
    target: Path,
    *,
    texts: Texts,
    languages: Sequence[str],
    report: Report,
    required: FormName = "int8",
) -> ConvertedModel:
    """Write the sentence-transformers model in `folder` to `target` in every form that is good enough.

    `Invalid` with figures if the `required` form is not; `ConverterMissing` without the extra `models`.
    """
    try:
        module = import_module("sluice.embedding_models.conversion")
    except ModuleNotFoundError as error:
        raise ConverterMissing(
            f"Converting needs the extra `models` ({error.name} is not installed): pip install 'sluice[models]'."
        ) from error
    return cast("_Conversion", module).convert(
        folder,
        target,
        vectors=vectors_of(folder, texts),
        texts=texts,
        languages=languages,
        threads=len(os.sched_getaffinity(0)),
        report=report,
        required=required,
    )
