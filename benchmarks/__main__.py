"""`python -m benchmarks [name ...]`: every benchmark, or those that are named."""

from __future__ import annotations

import sys

from benchmarks import edge, emb, fairness, latency, llm, memory, pipeline, queue
from benchmarks.subject import running_platform

# Memory first: idle means that nothing has been done yet.
BENCHMARKS = {
    "memory": memory.run,
    "latency": latency.run,
    "edge": edge.run,
    "queue": queue.run,
    "fairness": fairness.run,
    "emb": emb.run,
    "llm": llm.run,
    "pipeline": pipeline.run,
}


def main() -> int:
    """Run the benchmarks that were asked for."""
    names = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        sys.stderr.write(f"No benchmark is named {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}\n")
        return 2
    with running_platform() as platform:
        for name in names:
            BENCHMARKS[name](platform)
    return 0


if __name__ == "__main__":
    sys.exit(main())
