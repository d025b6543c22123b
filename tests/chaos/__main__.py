"""Break a platform on purpose and look at what is left: `python -m tests.chaos [--profile ci|long] [X1 X2 ...]`."""

from __future__ import annotations

import argparse
import sys

from tests.chaos import results
from tests.chaos.experiments import EXPERIMENTS, conduct
from tests.chaos.lab import running_lab


def main() -> int:
    """Run the experiments one after another; 1 when one of them did not pass."""
    arguments = argparse.ArgumentParser(prog="chaos", description=__doc__)
    arguments.add_argument("--profile", choices=(results.CI, results.LONG), default=results.LONG)
    arguments.add_argument("experiments", nargs="*", metavar="X1", help="only these")
    given = arguments.parse_args()
    if unknown := set(given.experiments) - EXPERIMENTS.keys():
        arguments.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
    done: list[results.Result] = []
    with running_lab(given.profile) as lab:
        for name in given.experiments or EXPERIMENTS:
            done.append(conduct(lab, name))
            results.show(done[-1], given.profile)
            results.write(done, given.profile)
    results.summarize(done, given.profile)
    return int(any(result.missed(given.profile) for result in done))


if __name__ == "__main__":
    sys.exit(main())
