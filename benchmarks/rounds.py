# SPDX-License-Identifier: MIT
"""Times statements against each other on a machine that does other things too.

The statements take turns, a fraction of a millisecond each, for many rounds. A burst
of other load then hits some rounds of all of them instead of all rounds of one. The
minimum is what a statement costs undisturbed; the median of the ratios within each
round is what it costs relative to its neighbour in the same weather. Where the two
agree, believe them.
"""

from __future__ import annotations

import timeit
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

LOOP = "the loop itself"


@dataclass(frozen=True)
class Timing:
    """
    What one statement cost in each round.

    Args:
        rounds: Nanoseconds a value, the loop around the statement included.
    """

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least disturbed round."""
        return min(self.rounds)

    @property
    def median(self) -> float:
        """A usual round."""
        return median(self.rounds)

    def over(self, other: Timing, floor: float = 0.0) -> float:
        """Ratio of the best rounds, each less `floor` nanoseconds."""
        return (self.best - floor) / (other.best - floor)

    def usually_over(self, other: Timing) -> float:
        """Median of the ratios round by round."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return median(a / b for a, b in pairs)


@dataclass(frozen=True)
class Statement:
    """
    A piece of Python to time.

    Args:
        code: The statement.
        names: Its global names.
        values: How many values or calls one execution stands for.
    """

    code: str
    names: Mapping[str, object]
    values: int = 1


def _calibrated(timer: timeit.Timer, seconds: float) -> int:
    """How often a statement runs in about `seconds`; at least once."""
    timer.timeit(1)  # what is made when first needed
    number = 1
    while True:
        elapsed = timer.timeit(number)
        if elapsed >= seconds / 4:
            return max(1, round(number * seconds / elapsed))
        number *= 4


def measure(
    statements: Mapping[str, Statement],
    *,
    rounds: int,
    turn: float = 0.0005,
    budget: float = 60.0,
) -> dict[str, Timing]:
    """
    Time statements in turns, and the empty loop with them.

    Args:
        statements: What to time, by name.
        rounds: How many turns each gets.
        turn: Seconds of one turn; a statement that takes longer runs once.
        budget: Seconds after which the rounds that were made must do.

    Returns:
        The timing of each name, and of `LOOP`.
    """
    all_ = {LOOP: Statement("pass", {}), **statements}
    timers = {
        name: timeit.Timer(statement.code, globals=dict(statement.names))
        for name, statement in all_.items()
    }
    numbers = {name: _calibrated(timer, turn) for name, timer in timers.items()}
    taken: dict[str, list[float]] = {name: [] for name in timers}
    end = perf_counter() + budget
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds = timer.timeit(numbers[name])
            calls = numbers[name] * all_[name].values
            taken[name].append(seconds / calls * 1e9)
        if perf_counter() > end:
            break
    return {name: Timing(tuple(values)) for name, values in taken.items()}
