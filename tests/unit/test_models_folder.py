"""An API on a host that has no models folder says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from services.api.dependencies import Resources
from services.api.models_folder import models_folder
from sluice.errors import Conflict
from sluice.settings import ModelStoreSettings


@dataclass(frozen=True)
class OnlyAFolder:
    """As much of the resources as is looked at."""

    models: ModelStoreSettings


def resources(folder: Path) -> Resources:
    return cast("Resources", OnlyAFolder(ModelStoreSettings(folder=folder)))


def test_a_folder_that_is_not_there_is_a_conflict_that_says_what_to_do(tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    with pytest.raises(Conflict) as refused, models_folder(resources(missing)):
        pytest.fail("there is nothing to use")

    assert refused.value.code == "models_folder_unusable"
    assert str(missing) in refused.value.detail
    assert "SLUICE_MODELS_FOLDER" in refused.value.detail
    assert "sluice models" in refused.value.detail
    assert not missing.exists()


def test_a_file_in_its_place_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("?")

    with pytest.raises(Conflict, match="has no models folder"), models_folder(resources(tmp_path / "models")):
        pytest.fail("there is nothing to use")


def test_an_empty_folder_is_one_without_models(tmp_path: Path) -> None:
    with models_folder(resources(tmp_path)) as store:
        assert store.manifest().models == ()


def test_what_the_system_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="Read-only file system") as refused, models_folder(resources(tmp_path)):
        raise OSError(30, "Read-only file system", str(tmp_path / ".lock"))

    assert refused.value.code == "models_folder_unusable"
    assert ".lock" in refused.value.detail
