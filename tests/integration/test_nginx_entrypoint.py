"""The script that writes nginx's configuration: what it refuses, in which words, and what it writes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.integration.nginx_edge import ENTRYPOINT, settings

EX_CONFIG = 78


def run(folder: Path, *arguments: str, **values: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENTRYPOINT, *arguments], env=settings(folder, **values), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("http_port", "eighty"),
        ("http_port", "65536"),
        ("http_port", "080"),
        ("https_port", "-1"),
        ("address", "0.0.0.0:80"),
        ("address", "127.0.0.1; return 200"),
        ("api", "api"),
        ("api", "http://api:8000"),
        ("s3", "s3:9000/bucket"),
        ("resolver", "name-server"),
        ("resolver_seconds", "0"),
        ("tls", "on"),
        ("hsts", "yes"),
        ("trusted_proxies", "10.0.0.0/8,192.168.0.0/16"),
        ("trusted_proxies", "everybody"),
        ("streams_per_token", "0"),
        ("streams_per_address", "65536"),
        ("requests_per_second", "1.5"),
        ("requests_burst", "0"),
        ("logins_per_minute", "many"),
        ("access_log", "access.log"),
        ("mode_dir", '/quote"'),
        ("run_dir", "/run/$HOME"),
        ("workers", "0"),
        ("sluice_ingest_max_upload_bytes", "1g"),
        ("sluice_ingest_max_upload_bytes", "99999999999999999999"),
        ("sluice_s3_bucket", "Sluice/"),
        ("sluice_s3_bucket", "api"),
        ("api", "api:8000\nserver_tokens on;"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_what_it_should_be(tmp_path: Path, name: str, value: str) -> None:
    done = run(tmp_path, "render", **{name: value})

    assert done.returncode == EX_CONFIG
    variable = name.upper() if name.startswith("sluice") else f"SLUICE_NGINX_{name.upper()}"
    assert re.search(rf"sluice-nginx: {variable} is .*{re.escape(value.splitlines()[-1])}", done.stderr, re.DOTALL)
    assert not (tmp_path / "run").exists()


def test_tls_without_its_files_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "render", tls="files", tls_certificate=tmp_path / "missing.pem")

    assert done.returncode == EX_CONFIG
    assert f"SLUICE_NGINX_TLS_CERTIFICATE is {tmp_path}/missing.pem, which cannot be read" in done.stderr


def test_a_certificate_that_is_none_is_refused_in_the_words_of_nginx(tmp_path: Path) -> None:
    (tmp_path / "certificate.pem").write_text("no certificate")
    files = dict.fromkeys(("tls_certificate", "tls_key"), tmp_path / "certificate.pem")

    done = run(tmp_path, tls="files", **files)

    assert done.returncode == EX_CONFIG
    assert "cannot load certificate" in done.stderr
    assert "sluice-nginx: nginx refuses the configuration" in done.stderr


def test_hsts_without_tls_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, "render", hsts="on")

    assert (done.returncode, "SLUICE_NGINX_TLS=files" in done.stderr) == (EX_CONFIG, True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = run(tmp_path, "render", run_dir=tmp_path / "file" / "run")

    assert done.returncode == EX_CONFIG
    assert f"SLUICE_NGINX_RUN_DIR is {tmp_path}/file/run, where user" in done.stderr


def test_rendering_leaves_no_variable_of_ours_and_every_variable_of_nginx(tmp_path: Path) -> None:
    done = run(tmp_path, "render")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = "".join(file.read_text() for file in (tmp_path / "run").glob("*.conf"))
    assert "${" not in written
    assert "$edge_request_id" in written
    assert not (tmp_path / "run" / "nginx.pid").exists()


def test_every_setting_has_a_meaning_and_a_default_that_are_accepted(tmp_path: Path) -> None:
    lines = ENTRYPOINT.read_text().splitlines()
    described = {
        match[1]: lines[number - 1]
        for number, line in enumerate(lines)
        if (match := re.fullmatch(r': "\$\{(SLUICE_[A-Z0-9_]+):=(.*)\}"', line))
    }

    assert len(described) > 20
    assert all(re.fullmatch(r"# [A-Za-z].*[^.]", meaning) for meaning in described.values())
    templates = "".join(file.read_text() for file in (ENTRYPOINT.parent / "templates").iterdir())
    assert set(re.findall(r"\$\{(SLUICE_[A-Z0-9_]+)\}", templates)) <= described.keys()
    alone = subprocess.run(
        [ENTRYPOINT, "render"],
        env={"PATH": settings(tmp_path)["PATH"], "SLUICE_NGINX_RUN_DIR": str(tmp_path / "run")},
        check=False,
    )
    assert alone.returncode == 0
