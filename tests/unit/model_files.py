"""Files that stand for models."""

from __future__ import annotations

from pathlib import Path


def file_of(tmp_path: Path, content: bytes = b"GGUF weights", name: str = "tiny.gguf") -> Path:
    file = tmp_path / name
    file.write_bytes(content)
    return file


def folder_of(tmp_path: Path, weights: bytes = b"weights") -> Path:
    folder = tmp_path / "minilm"
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    (folder / "weights.bin").write_bytes(weights)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder
