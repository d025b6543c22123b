"""The documents say what the code does: tables that exist twice are compared."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from services.api.problems import INTERNAL, PROBLEMS
from services.cli.exit_codes import Exit
from sluice import settings
from sluice.environment import Settings
from sluice.jobs.state import NEXT_STATES

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_state_diagram_shows_the_moves_that_the_table_allows() -> None:
    drawn = set(re.findall(r"^ {4}(\w+) --> (\w+):", ARCHITECTURE, flags=re.MULTILINE))

    assert drawn == {(state.value, following.value) for state, after in NEXT_STATES.items() for following in after}


def test_every_setting_is_documented_with_its_default() -> None:
    for group in vars(settings).values():
        if inspect.isclass(group) and issubclass(group, Settings):
            for name, field in group.model_fields.items():
                variable = f"{group.model_config['env_prefix']}{name}".upper()
                default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"

                assert f"| `{variable}` | {default} | {field.description or ''} |" in OPERATIONS, variable


def test_no_setting_is_documented_that_does_not_exist() -> None:
    documented = set(re.findall(r"^\| `(SLUICE_\w+)` \|", OPERATIONS, flags=re.MULTILINE))
    groups = [group for group in vars(settings).values() if inspect.isclass(group) and issubclass(group, Settings)]

    assert documented == {
        f"{group.model_config['env_prefix']}{name}".upper() for group in groups for name in group.model_fields
    }


def test_every_problem_code_is_documented() -> None:
    assert dict(re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", API.split("## Codes")[1], flags=re.MULTILINE)) == PROBLEMS


def test_every_code_that_the_core_api_and_workers_use_has_a_meaning() -> None:
    folders = [ROOT / "sluice", ROOT / "services" / "api", ROOT / "services" / "workers"]
    used = {
        code
        for folder in folders
        for file in folder.rglob("*.py")
        if file.parent.name != "wire"
        for code in re.findall(r"""\bcode(?:: str)? ?= ?"([a-z_]+)""", file.read_text(encoding="utf-8"))
    }

    assert used - INTERNAL <= set(PROBLEMS)


def test_every_exit_status_is_documented() -> None:
    documented = {int(status) for status in re.findall(r"^\| (\d+) \|", API, flags=re.MULTILINE)}

    assert documented == {int(status) for status in Exit}
