"""`sluice models`, as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from services.cli.exit_codes import Exit
from tests.unit.model_files import file_of, folder_of


def sluice_models(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli.main", "models", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "SLUICE_MODELS_FOLDER": str(folder), "XDG_CONFIG_HOME": str(folder / "nobody")},
    )


def test_the_commands_add_list_activate_verify_and_remove(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for version, content in (("1", b"GGUF one"), ("2", b"GGUF two")):
        file = file_of(tmp_path, content)
        added = sluice_models(
            models, "add", file, "--name", "tiny", "--type", "llm", "--backend", "llama_cpp", "--version", version
        )
        assert added.returncode == 0, added.stderr
        activated = sluice_models(models, "activate", f"tiny@{version}")
        assert activated.returncode == 0, activated.stderr
        assert "sluice models rollback --type llm" in activated.stderr

    listed = json.loads(sluice_models(models, "ls", "--json").stdout)
    assert [(one["version"], one["aliases"]) for one in listed] == [("1", ["default (previous)"]), ("2", ["default"])]

    assert sluice_models(models, "rm", "tiny@1").returncode == Exit.CONFLICT
    rolled_back = sluice_models(models, "rollback", "--type", "llm")
    assert rolled_back.stdout.split() == ["default", "llm", "tiny@1", "tiny@2"]

    assert sluice_models(models, "verify").returncode == 0
    (models / "tiny" / "2" / "tiny.gguf").write_bytes(b"GGUF 2wo")
    damaged = sluice_models(models, "verify")
    assert damaged.returncode == Exit.FAILED
    assert "tiny@2" in damaged.stdout


def test_activating_an_embedding_model_says_how_to_learn_what_it_leaves_behind(tmp_path: Path) -> None:
    models, model = tmp_path / "models", folder_of(tmp_path)
    sluice_models(
        models, "add", model, "--type", "embed", "--backend", "sentence_transformers", "--dimension", "384",
        "--version", "1",
    )  # fmt: skip

    activated = sluice_models(models, "activate", "minilm")

    assert activated.returncode == 0, activated.stderr
    assert activated.stdout.split() == ["default", "embed", "minilm@1", "-"]
    assert "No server is known" in activated.stderr
    assert "sluice models outdated" in activated.stderr


def test_a_wrong_command_is_a_sentence_and_no_traceback(tmp_path: Path) -> None:
    file = file_of(tmp_path)
    for arguments, status in (
        (("add", file, "--name", "a/b", "--type", "llm", "--backend", "llama_cpp"), Exit.USAGE),
        (("add", file, "--name", "manifest.json", "--type", "llm"), Exit.USAGE),
        (("add", file, "--type", "llm", "--backend", "openvino"), Exit.USAGE),
        (("add", tmp_path, "--type", "embed", "--backend", "abacus"), Exit.USAGE),
        (("add", tmp_path, "--type", "llm"), Exit.FAILED),
        (("add", file_of(tmp_path, b"hello", "letter.gguf"), "--type", "llm"), Exit.FAILED),
        (
            ("add", folder_of(tmp_path), "--type", "embed", "--backend", "sentence_transformers", "--dimension", "0"),
            Exit.USAGE,
        ),
        (("add", file, "--name", "a", "--type", "other", "--backend", "llama_cpp"), Exit.USAGE),
        (("activate", "nothing"), Exit.NOT_FOUND),
    ):
        done = sluice_models(tmp_path / "models", *arguments)
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        assert "pydantic" not in done.stderr
    assert json.loads(sluice_models(tmp_path / "models", "ls", "--json").stdout) == []


def test_the_name_of_a_folder_is_kept_whole(tmp_path: Path) -> None:
    folder = folder_of(tmp_path).rename(tmp_path / "bge-small-en-v1.5")

    added = sluice_models(
        tmp_path / "models", "add", folder, "--type", "embed", "--backend", "sentence_transformers", "--dimension",
        "384", "--json",
    )  # fmt: skip

    assert json.loads(added.stdout)["name"] == "bge-small-en-v1.5"
