"""How much work may wait, and when a caller that is refused should come back. Counted in tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sluice.errors import TooLarge, TooManyRequests

# A cautious guess until the first batch has been measured.
_FIRST_TOKENS_PER_SECOND = 2000.0
# The mean is over about this many: a full pass of 1,024 is a fifth of it.
_TOKENS_REMEMBERED = 4096
# A pass over fewer tokens costs almost as much as one over more: it shows how fast the model is at least.
_TELLING_TOKENS = 128
_CHARACTERS_PER_TOKEN = 4
_LONGEST_RETRY_SECONDS = 300.0


class Throughput:
    """Tokens per second when there is enough to do, as a mean over batches that counts the newest and largest most."""

    def __init__(self) -> None:
        self.tokens_per_second = _FIRST_TOKENS_PER_SECOND

    def start_from(self, tokens: int, seconds: float) -> None:
        """Take a first measurement for the mean."""
        if seconds > 0:
            self.tokens_per_second = tokens / seconds

    def record(self, tokens: int, seconds: float) -> None:
        """Take a batch into account."""
        if seconds <= 0:
            return
        faster = tokens / seconds - self.tokens_per_second
        if tokens >= _TELLING_TOKENS or faster > 0:
            self.tokens_per_second += faster * tokens / (tokens + _TOKENS_REMEMBERED)

    def tokens_in(self, seconds: float) -> int:
        """How many tokens this time is enough for."""
        return int(self.tokens_per_second * seconds)

    def seconds_for(self, tokens: int) -> float:
        """How long this many tokens take."""
        return min(_LONGEST_RETRY_SECONDS, tokens / self.tokens_per_second)


class Reservation:
    """The part of the queue that one request holds."""

    def __init__(self, admission: Admission, tokens: int) -> None:
        self._admission = admission
        self.tokens = tokens

    def resize(self, tokens: int) -> None:
        """Hold exactly `tokens` from now on, or raise as `Admission.reserve` does."""
        self._admission.change(self.tokens, tokens)
        self.tokens = tokens


class Admission:
    """A bound on the tokens that wait or are being embedded. A request gets all that it needs, or nothing."""

    def __init__(self, capacity: int, throughput: Throughput) -> None:
        self.capacity = capacity
        self.tokens = 0
        self._throughput = throughput

    @contextmanager
    def reserve(self, tokens: int) -> Iterator[Reservation]:
        """Hold `tokens` of the queue while inside.

        `TooManyRequests` says when to come back if they do not fit now, `TooLarge` if they never will.
        """
        self.change(0, tokens)
        reservation = Reservation(self, tokens)
        try:
            yield reservation
        finally:
            self.tokens -= reservation.tokens

    def change(self, held: int, wanted: int) -> None:
        """Turn `held` tokens of a request into `wanted`, or raise and change nothing."""
        if wanted > self.capacity:
            raise TooLarge(
                f"The request has about {wanted} tokens; {self.capacity} at most can wait. Split it.",
                limit=self.capacity,
            )
        after = self.tokens - held + wanted
        if after > self.capacity:
            raise TooManyRequests(
                f"{self.tokens} tokens are waiting and {wanted} more do not fit into {self.capacity}.",
                code="queue_full",
                retry_after=self._throughput.seconds_for(after - self.capacity),
            )
        self.tokens = after


def estimated_tokens(texts: list[str], max_tokens: int) -> int:
    """About how many tokens a model reads of the texts, at most `max_tokens` of each: to reserve before it is known."""
    return sum(min(max_tokens, len(text) // _CHARACTERS_PER_TOKEN + 2) for text in texts)
