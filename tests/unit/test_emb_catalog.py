"""Which model each alias means."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.emb.catalog import Catalog
from sluice.embedding_models.layout import BUILT_IN
from sluice.environment import SettingsError
from sluice.model_store.store import Description, ModelStore
from sluice.settings import EmbServiceSettings


def a_model(folder: Path) -> Path:
    folder.mkdir()
    for name in ("modules.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def catalog(store: ModelStore, **settings: object) -> Catalog:
    return Catalog(EmbServiceSettings.model_validate(settings), store)


def test_without_a_manifest_the_default_alias_means_the_built_in_model(tmp_path: Path) -> None:
    wanted = catalog(ModelStore(tmp_path)).wanted()

    assert list(wanted) == ["default"]
    assert wanted["default"].verified() == BUILT_IN


def test_the_torch_backend_runs_the_original_of_the_built_in_model(tmp_path: Path) -> None:
    wanted = catalog(ModelStore(tmp_path), backend="sentence_transformers").wanted()

    assert (wanted["default"].verified() / "modules.json").is_file()


def test_what_the_manifest_says_goes_before_the_settings_and_other_aliases_stand_beside(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    entry = store.add(
        a_model(tmp_path / "a"), Description(name="a", type="embed", backend="static", dimension=3, languages=("de",))
    )
    store.activate("fast", entry.key)
    first = catalog(store)
    assert {alias: model.name for alias, model in first.wanted().items()} == {
        "default": "all-MiniLM-L6-v2",
        "fast": str(entry.key),
    }
    seen = first.changed_at()

    store.activate("default", entry.key)
    wanted = first.wanted()
    assert first.changed_at() != seen
    assert wanted["default"] == wanted["fast"]
    assert wanted["default"].languages == ("de",)


def test_what_an_alias_meant_before_is_known_with_it(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    first, second = (
        store.add(a_model(tmp_path / name), Description(name=name, type="embed", backend="static", dimension=3))
        for name in ("first", "second")
    )
    for alias in ("default", "fast"):
        store.activate(alias, first.key)
    before = {alias: model.before and model.before.name for alias, model in catalog(store).wanted().items()}
    assert before == {"default": "all-MiniLM-L6-v2", "fast": None}

    store.activate("fast", second.key)
    fast = catalog(store).wanted()["fast"]
    assert (fast.name, fast.before and fast.before.name) == (str(second.key), str(first.key))


@pytest.mark.parametrize("backend", ["openvino", "sentence_transformers", "static"])
def test_a_folder_without_a_model_is_refused_with_the_setting_to_change(tmp_path: Path, backend: str) -> None:
    with pytest.raises(SettingsError, match="SLUICE_EMB_MODEL_PATH"):
        catalog(ModelStore(tmp_path), model_path=tmp_path, backend=backend)


def test_an_unknown_backend_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="openvino, sentence_transformers, static"):
        catalog(ModelStore(tmp_path), model_path=tmp_path, backend="abacus")
