"""The models folder: nothing is loaded that is not what was added, and no change is half done."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from sluice.errors import Conflict, NotFound
from sluice.model_store.files import UnsafePath
from sluice.model_store.manifest import Alias, Manifest, ManifestUnreadable, Version
from sluice.model_store.store import Description, ModelStore, NotWhatWasAdded
from tests.unit.model_files import file_of, folder_of

GGUF = Description(name="tiny", type="llm", backend="llama_cpp", version="1", context=2048)
FOLDER = Description(name="minilm", type="embed", backend="openvino", dimension=384, languages=("en",))


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def version_of(described: Description, version: str) -> Description:
    return Description(
        name=described.name, type=described.type, backend=described.backend, version=version, dimension=384
    )


# What is added is what is found.


def test_a_file_is_listed_with_the_sha256_that_sha256sum_prints(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(file_of(tmp_path), GGUF)

    assert (entry.size, entry.sha256) == (12, hashlib.sha256(b"GGUF weights").hexdigest())
    assert store.verified(entry) == store.folder / "tiny" / "1" / "tiny.gguf"
    assert store.manifest().models == (entry,)


def test_a_folder_is_one_model_and_its_version_is_its_digest(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(folder_of(tmp_path), FOLDER)

    assert entry.version == entry.sha256[:12]
    assert (store.verified(entry) / "1_Pooling" / "config.json").read_text() == "{}"


def test_the_same_model_twice_is_one_and_other_contents_need_another_version(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(file_of(tmp_path), GGUF)

    assert store.add(file_of(tmp_path), GGUF) == entry
    with pytest.raises(Conflict):
        store.add(file_of(tmp_path, b"other weights"), GGUF)
    assert len(store.manifest().models) == 1


def test_what_a_killed_add_left_is_no_obstacle(store: ModelStore, tmp_path: Path) -> None:
    (store.folder / ".incoming").mkdir(parents=True)
    (store.folder / "tiny" / "1").mkdir(parents=True)
    (store.folder / "tiny" / "1" / "tiny.gguf").write_bytes(b"half of i")

    store.verified(store.add(file_of(tmp_path), GGUF))


# Files that are not what was added.


@pytest.mark.parametrize("content", [b"GGUF weight", b"GGUF weighty", b""])
def test_a_changed_or_truncated_file_is_refused(store: ModelStore, tmp_path: Path, content: bytes) -> None:
    entry = store.add(file_of(tmp_path), GGUF)
    store.verified(entry).write_bytes(content)

    with pytest.raises(NotWhatWasAdded):
        store.verified(entry)


def test_files_in_a_folder_that_are_renamed_added_or_removed_are_noticed(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(folder_of(tmp_path), FOLDER)
    place = store.verified(entry)
    (place / "weights.bin").rename(place / "weights.old")
    with pytest.raises(NotWhatWasAdded):
        store.verified(entry)
    (place / "weights.old").rename(place / "weights.bin")
    store.verified(entry)
    (place / "empty").touch()
    with pytest.raises(NotWhatWasAdded):
        store.verified(entry)


def test_a_model_is_digested_again_only_when_it_was_touched(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(file_of(tmp_path), GGUF)
    place = store.verified(entry)
    before = place.stat()
    place.write_bytes(b"GGUF weighty"[:12])
    os.utime(place, ns=(before.st_atime_ns, before.st_mtime_ns))

    # Same inode, size and time: this object trusts it, a new process does not.
    assert store.verified(entry) == place
    with pytest.raises(NotWhatWasAdded):
        ModelStore(store.folder).verified(entry)


def test_a_model_whose_files_are_gone_is_not_found(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(file_of(tmp_path), GGUF)
    store.verified(entry).unlink()

    with pytest.raises(NotFound):
        store.verified(entry)


# Nothing outside of the folder.


def test_links_are_refused_when_a_model_is_added_and_when_it_is_read(store: ModelStore, tmp_path: Path) -> None:
    secret = file_of(tmp_path, b"secret", "secret")
    folder = folder_of(tmp_path)
    (folder / "link").symlink_to(secret)
    with pytest.raises(UnsafePath):
        store.add(folder, FOLDER)

    entry = store.add(file_of(tmp_path), GGUF)
    place = store.verified(entry)
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    with pytest.raises(UnsafePath):
        store.verified(entry)


def test_a_linked_folder_on_the_way_to_a_model_is_refused(store: ModelStore, tmp_path: Path) -> None:
    entry = store.add(file_of(tmp_path), GGUF)
    (store.folder / "tiny").rename(tmp_path / "elsewhere")
    (store.folder / "tiny").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafePath):
        store.verified(entry)


def listed(store: ModelStore, tmp_path: Path, **changes: Any) -> None:
    """A manifest as somebody wrote it by hand."""
    entry = store.add(file_of(tmp_path), GGUF).model_dump(mode="json")
    (store.folder / "manifest.json").write_text(json.dumps({"schema": 1, "models": [entry | changes]}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "..", ".", "", "a\\b", "a\0b"])
def test_a_manifest_with_a_path_outside_of_the_folder_is_refused(store: ModelStore, tmp_path: Path, path: str) -> None:
    listed(store, tmp_path, path=path)

    with pytest.raises(ManifestUnreadable, match="path"):
        store.manifest()


@pytest.mark.parametrize(
    "changes",
    [{"sha256": "abc"}, {"size": "12"}, {"size": -1}, {"type": "embed"}, {"name": "a/b"}, {"colour": "red"}],
)
def test_a_manifest_with_a_wrong_entry_is_refused(
    store: ModelStore, tmp_path: Path, changes: dict[str, object]
) -> None:
    listed(store, tmp_path, **changes)

    with pytest.raises(ManifestUnreadable):
        store.manifest()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"schema": 2}', b'{"aliases": {"llm": {"a": {"active": {"name": "x", "version": "1"}}}}}'],
)
def test_a_manifest_that_does_not_hold_together_is_refused(store: ModelStore, content: bytes) -> None:
    store.folder.mkdir()
    (store.folder / "manifest.json").write_bytes(content)

    with pytest.raises(ManifestUnreadable):
        store.manifest()


# Aliases.


def two_versions(store: ModelStore, tmp_path: Path) -> tuple[Version, Version]:
    return (
        store.add(file_of(tmp_path), GGUF).key,
        store.add(file_of(tmp_path, b"GGUF better"), version_of(GGUF, "2")).key,
    )


def test_an_alias_means_one_model_and_can_be_rolled_back_and_forth(store: ModelStore, tmp_path: Path) -> None:
    old, new = two_versions(store, tmp_path)
    store.activate("default", old)
    store.activate("default", new)
    assert store.manifest().aliases["llm"]["default"] == Alias(active=new, previous=old)

    store.rollback("llm", "default")
    assert store.manifest().aliases["llm"]["default"] == Alias(active=old, previous=new)
    store.rollback("llm", "default")
    assert store.manifest().active("llm")["default"].key == new


def test_a_change_of_an_alias_is_undone_unless_it_was_changed_again(store: ModelStore, tmp_path: Path) -> None:
    old, new = two_versions(store, tmp_path)
    nothing, first = store.manifest(), store.activate("default", old)
    second = store.activate("default", new)

    assert store.put_back("llm", "default", before=nothing, after=first) == second
    assert store.put_back("llm", "default", before=first, after=second) == first
    assert store.put_back("llm", "default", before=nothing, after=first).active("llm") == {}


def test_activating_what_is_active_keeps_the_way_back(store: ModelStore, tmp_path: Path) -> None:
    old, new = two_versions(store, tmp_path)
    for each in (old, new, new):
        store.activate("default", each)

    assert store.manifest().aliases["llm"]["default"].previous == old


def test_a_damaged_model_is_neither_activated_nor_rolled_back_to(store: ModelStore, tmp_path: Path) -> None:
    old, new = two_versions(store, tmp_path)
    store.activate("default", old)
    store.activate("default", new)
    before = store.manifest()
    store.verified(before.entry(old)).write_bytes(b"damaged")

    with pytest.raises(NotWhatWasAdded):
        store.activate("other", old)
    with pytest.raises(NotWhatWasAdded):
        store.rollback("llm", "default")
    assert store.manifest() == before


def test_an_alias_of_embed_and_one_of_llm_may_have_the_same_name(store: ModelStore, tmp_path: Path) -> None:
    store.activate("default", store.add(file_of(tmp_path), GGUF).key)
    store.activate("default", store.add(folder_of(tmp_path), FOLDER).key)

    manifest = store.manifest()
    assert (manifest.active("llm")["default"].name, manifest.active("embed")["default"].name) == ("tiny", "minilm")


def test_a_model_that_is_active_or_the_way_back_is_not_removed(store: ModelStore, tmp_path: Path) -> None:
    old, new = two_versions(store, tmp_path)
    store.activate("default", old)
    store.activate("default", new)
    for each in (old, new):
        with pytest.raises(Conflict):
            store.remove(each)

    store.forget_alias("llm", "default")
    store.remove(old)
    assert not (store.folder / "tiny" / "1").exists()
    assert [entry.key for entry in store.manifest().models] == [new]


def test_the_way_back_of_an_alias_that_has_none_is_a_conflict(store: ModelStore, tmp_path: Path) -> None:
    old, _ = two_versions(store, tmp_path)
    store.activate("default", old)
    with pytest.raises(Conflict):
        store.rollback("llm", "default")
    with pytest.raises(NotFound):
        store.rollback("llm", "another")


def test_an_unknown_model_is_answered_with_the_known_ones(store: ModelStore, tmp_path: Path) -> None:
    two_versions(store, tmp_path)
    with pytest.raises(NotFound, match="tiny@1, tiny@2"):
        store.activate("default", Version(name="tiny", version="3"))


def test_a_model_is_called_by_its_name_and_by_its_version_where_there_are_several(
    store: ModelStore, tmp_path: Path
) -> None:
    minilm = store.add(folder_of(tmp_path), FOLDER)
    two_versions(store, tmp_path)
    manifest = store.manifest()

    assert manifest.named("minilm") == manifest.named(str(minilm.key)) == minilm
    assert manifest.named("tiny@2").version == "2"
    with pytest.raises(Conflict, match="tiny@1, tiny@2"):
        manifest.named("tiny")
    for unknown in ("large", "tiny@3", "tiny@", "@1", "a/b@c d"):
        with pytest.raises(NotFound, match="there are"):
            manifest.named(unknown)


def test_a_model_knows_which_aliases_need_it(store: ModelStore, tmp_path: Path) -> None:
    old, new = two_versions(store, tmp_path)
    for alias, versions in {"default": (old, new), "other": (old,)}.items():
        for version in versions:
            store.activate(alias, version)
    manifest = store.manifest()

    assert manifest.meant_by(manifest.entry(old)) == {"default": "previous", "other": "active"}
    assert manifest.meant_by(manifest.entry(new)) == {"default": "active"}


def test_changes_at_the_same_time_are_all_kept(store: ModelStore, tmp_path: Path) -> None:
    key = store.add(file_of(tmp_path), GGUF).key
    writers = [Thread(target=ModelStore(store.folder).activate, args=(f"alias-{n}", key)) for n in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert len(store.manifest().aliases["llm"]) == 20
    assert not list(store.folder.glob("*.new"))


def test_every_change_is_seen_at_the_manifest(store: ModelStore, tmp_path: Path) -> None:
    assert store.manifest() == Manifest()
    seen = {store.changed_at()}
    entry = store.add(file_of(tmp_path), GGUF)
    seen.add(store.changed_at())
    store.activate("default", entry.key)
    seen.add(store.changed_at())

    assert len(seen) == 3
