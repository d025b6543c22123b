"""Which model is served, and which version it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.emb.model_folder import model_folder, model_version
from sluice.settings import EmbServiceSettings, SettingsError


def a_model(folder: Path) -> Path:
    folder.mkdir()
    for name in ("modules.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def test_the_same_files_are_the_same_version_wherever_they_lie(tmp_path: Path) -> None:
    here, there = a_model(tmp_path / "here"), a_model(tmp_path / "there")
    (there / "README.md").write_text("says nothing about vectors")
    assert model_version(here) == model_version(there)


@pytest.mark.parametrize("name", ["modules.json", "tokenizer.json", "model.safetensors"])
def test_any_other_weight_or_setting_is_another_version(tmp_path: Path, name: str) -> None:
    folder = a_model(tmp_path / "model")
    before = model_version(folder)
    (folder / name).write_text("changed")
    assert model_version(folder) != before


def test_a_folder_without_a_model_is_refused_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SLUICE_EMB_MODEL_PATH"):
        model_folder(EmbServiceSettings(model_path=tmp_path))


def test_the_built_in_model_is_found() -> None:
    assert (model_folder(EmbServiceSettings()) / "model.safetensors").is_file()
