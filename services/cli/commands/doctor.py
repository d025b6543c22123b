"""`sluice doctor`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from services.cli import account
from services.cli.client import Client
from services.cli.exit_codes import CommandError, Exit
from services.cli.output import say, show_json, show_table

_STORES: Final = ("postgres", "qdrant", "s3")


def doctor(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is found.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Compare PostgreSQL, the object store and the vector index. Exit status 1 if they (still) differ."""
    with Client(account.load()) as client:
        job_id = client.call("POST", "/api/admin/doctor", json={"repair": repair})["id"]
        for _ in client.watch_job(job_id):
            pass
        job = client.call("GET", f"/api/jobs/{job_id}")
    if job["state"] != "ready":
        why = f": {job['error']['detail']}" if job["error"] else ""
        raise CommandError(f"The job {job_id} is {job['state']}{why}.", Exit.FAILED)
    result = job["result"]
    if as_json:
        show_json(result)
    else:
        show_table(["store", "what", "found", "left", "for example"], _rows(result))
        for document_id in result["lost"]:
            say(f"The file of document {document_id} is lost: upload it again.")
    left = sum(number for store in _STORES for number in result[store].values())
    if left:
        mend = "" if repair else " Mend what can be mended: sluice doctor --repair"
        raise CommandError(f"{left} things differ between the stores.{mend}", Exit.FAILED)


def _rows(result: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            store,
            kind.replace("_", " "),
            result["found"][store][kind],
            number,
            ", ".join(result["samples"].get(f"{store}.{kind}", [])[:2]) or None,
        )
        for store in _STORES
        for kind, number in sorted(result[store].items())
    ]
