"""llama.cpp without a server: the least time in which this machine can do the work of so many clients."""

from __future__ import annotations

import time
from pathlib import Path

from services.llm.backends.llama_cpp.native import NativeContext, NativeModel
from services.llm.backends.llama_cpp.rows import Row
from services.llm.backends.llama_cpp.steps import LARGEST_STEP


def least_seconds(file: Path, *, threads: int, clients: int, read: int, written: int) -> float:
    """Seconds to read all prompts in full passes, and then to write all answers a token of each at a time.

    A server that does both for the same clients needs more: answers begin while prompts are still read.
    """
    model = NativeModel(file)
    try:
        context = NativeContext(model, sequences=clients, context_tokens=read + written, threads=threads)
        try:
            context.self_test()
            began = time.perf_counter()
            for sequence in range(clients):
                for start in range(0, read, LARGEST_STEP):
                    places = range(start, min(read, start + LARGEST_STEP))
                    _decode(context, [Row(_token(place), place, sequence, place == read - 1) for place in places])
            # Reading has given each answer its first token.
            for place in range(read, read + written - 1):
                _decode(context, [Row(_token(place), place, sequence, wanted=True) for sequence in range(clients)])
            return time.perf_counter() - began
        finally:
            context.close()
    finally:
        model.close()


def _token(place: int) -> int:
    return 1 + place % 1000


def _decode(context: NativeContext, rows: list[Row]) -> None:
    if context.decode(rows):
        raise RuntimeError("llama.cpp did not compute the batch.")
