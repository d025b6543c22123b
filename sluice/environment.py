"""How settings come from the environment: `SLUICE_*` variables, or the files that `SLUICE_*_FILE` name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NoReturn, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableVariable


class SettingsError(Exception):
    """The environment does not say what this process needs."""


class _EnvOrFile(EnvSettingsSource):
    """Read `NAME`, or the file that `NAME_FILE` points to (how Docker hands out secrets)."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        value, key, is_complex = super().get_field_value(field, field_name)
        if value == "" and self.field_is_complex(field):
            # What a stack file hands on for a list that nobody set.
            value = None
        file_key = f"{self.env_prefix}{field_name}_FILE".upper()
        path = os.environ.get(file_key)
        if path is None:
            return value, key, is_complex
        if value is not None:
            raise SettingsError(f"Both {file_key.removesuffix('_FILE')} and {file_key} are set: keep one of them.")
        return self._read(file_key, path), key, is_complex

    @staticmethod
    def _read(file_key: str, path: str) -> str:
        try:
            content = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"{file_key} points to {path}, which cannot be read: {error.strerror}.") from error
        content = content.removesuffix("\n")
        if not content:
            raise SettingsError(f"{file_key} points to {path}, which is empty.")
        return content


class Settings(BaseSettings):
    """A group of settings that belong to one part."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(  # noqa: D102 - pydantic-settings documents it
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by _EnvOrFile
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - no .env: an operator must see what is set
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - `*_FILE` says the same, visibly
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, _EnvOrFile(settings_cls))

    @classmethod
    def from_environment(cls) -> Self:
        """These settings as the environment gives them; `SettingsError` says which variable to set and why."""
        try:
            return cls()
        except UnreadableVariable as error:
            if isinstance(error.__cause__, SettingsError):
                raise error.__cause__ from None
            raise SettingsError(f'{cls.__name__}: {error}. A list is written as JSON: ["en", "ru"].') from error
        except ValidationError as error:
            prefix = str(cls.model_config.get("env_prefix", ""))
            wrong = "; ".join(_said_of(prefix, each["loc"], each["msg"]) for each in error.errors())
            raise SettingsError(
                f"{cls.__name__} is incomplete. {wrong}. Set each variable, or NAME_FILE with a path to its value; "
                "docs/operations.md lists them all."
            ) from error


def _said_of(prefix: str, place: tuple[int | str, ...], message: str) -> str:
    sentence = message.removeprefix("Value error, ")
    if not sentence[1:2].isupper():
        sentence = sentence[:1].lower() + sentence[1:]
    # What is said of several variables together names them itself.
    return f"{prefix}{'_'.join(map(str, place))}".upper() + f": {sentence}" if place else sentence


def exit_with_reason(error: SettingsError) -> NoReturn:
    """End the process with the sentence that says what to set; a traceback would hide it."""
    sys.stderr.write(f"sluice: {error}\n")
    raise SystemExit(78) from None  # EX_CONFIG of sysexits.h
