"""How a document is to be read, where that differs from what the settings say."""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sluice.documents.parsers import OTHER_PARSERS, PAGED
from sluice.errors import Invalid

_MOST_SKIPPED: Final = 10_000


class ReadingOptions(BaseModel):
    """What may be asked of ingest for one document."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    ocr: bool | None = Field(None, description="Read scans with Tesseract, or not; default: as SLUICE_INGEST_OCR says")
    skip_pages: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), max_length=_MOST_SKIPPED, strict=False, description="Numbers of pages to leave out, from 1"
    )
    parser: str | None = Field(None, description="`pypdf` (PDF) or `plain` (text formats); default: the usual parser")

    @classmethod
    def of(cls, given: dict[str, Any] | None, mime: str | None = None) -> Self:
        """These options, as far as they make sense (for this type); `Invalid` says what does not."""
        try:
            options = cls.model_validate(given or {})
        except ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise Invalid(
                f"These options cannot be followed: {wrong}. There are `ocr`, `skip_pages` and `parser`."
            ) from error
        if options.parser is not None and options.parser not in OTHER_PARSERS:
            raise Invalid(f"There is no parser {options.parser!r}; there are {', '.join(OTHER_PARSERS)}.")
        if mime is not None:
            options.check(mime)
        return options

    def check(self, mime: str) -> None:
        """Raise `Invalid` when files of this type cannot be read so."""
        if self.parser is not None and mime not in OTHER_PARSERS[self.parser]:
            fitting = [name for name, types in OTHER_PARSERS.items() if mime in types]
            instead = f"one that does: {', '.join(fitting)}" if fitting else "there is no other parser for it"
            raise Invalid(f"The parser {self.parser!r} does not read {mime}; {instead}.")
        if self.skip_pages and mime not in PAGED:
            raise Invalid(f"A file of the type {mime} has no pages that could be left out.")

    def as_stored(self) -> dict[str, Any]:
        """What the job keeps: the options that were given, the same for the same wish."""
        kept = self.model_dump(mode="json", exclude_defaults=True)
        if self.skip_pages:
            kept["skip_pages"] = sorted(set(self.skip_pages))
        return kept
