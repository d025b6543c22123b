"""Kill points armed for one document, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Final

from sluice.kill_points import KillPoint, arm

# In the order in which a short document passes them.
ON_THE_WAY: Final = (
    KillPoint.AFTER_CLAIM,
    KillPoint.IN_HEARTBEAT,
    KillPoint.AFTER_EXTRACT,
    KillPoint.AFTER_CHUNK,
    KillPoint.AFTER_EMBED,
    KillPoint.IN_EMBED_PART,
    KillPoint.AFTER_UPSERT_BEFORE_COMMIT,
    KillPoint.AFTER_COMMIT_BEFORE_ACK,
)
_LOOK_SECONDS: Final = 0.01


def is_armed(folder: Path, point: KillPoint, subject: object) -> bool:
    """Whether nobody has been struck by it yet."""
    return (folder / point.value / str(subject)).exists()


@contextmanager
def always_armed(folder: Path, points: Sequence[KillPoint], subject: object, command: str) -> Iterator[None]:
    """With points that strike every time: each is armed again as soon as it has struck.

    Several, because the next attempt may be past the first one before it is armed again.
    """
    ended = Event()

    def keep() -> None:
        while True:
            for point in points:
                if not is_armed(folder, point, subject):
                    arm(folder, point, subject, command)
            if ended.wait(_LOOK_SECONDS):
                return

    thread = Thread(target=keep, name=f"arming-{subject}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for point in points:
            (folder / point.value / str(subject)).unlink(missing_ok=True)
