"""The one thread that owns the context: it reads prompts and writes answers, a step at a time, for all of them."""

from __future__ import annotations

import threading
import time
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from services.llm.backends.base import Facts
from services.llm.backends.llama_cpp.answer import Answer, Order
from services.llm.backends.llama_cpp.context import Context, Vocabulary
from services.llm.backends.llama_cpp.errors import DecodeFailed, GrammarExhausted
from services.llm.backends.llama_cpp.prefixes import SavedStates
from services.llm.backends.llama_cpp.rows import rows_of
from services.llm.backends.llama_cpp.seats import Seats
from services.llm.backends.llama_cpp.steps import Pace, Turns
from services.llm.backends.llama_cpp.stream import Item, Stream
from sluice import telemetry
from sluice.errors import SluiceError, TemporarilyUnavailable

# The thread looks up this often when there is nothing to do.
_BEAT_SECONDS: Final = 0.5
_DONE: Final = 0
_NO_ROOM: Final = 1


class Engine:
    """Orders go in from the event loop; what is written comes out of their streams."""

    def __init__(
        self,
        open_context: Callable[[], Context],
        vocabulary: Vocabulary,
        *,
        target_seconds: float,
        stuck_seconds: float,
        saved_bytes: int,
    ) -> None:
        self._open_context = open_context
        self._vocabulary = vocabulary
        self._stuck_seconds = stuck_seconds
        self._pace = Pace(target_seconds, stuck_seconds)
        self._turns = Turns()
        self._states = SavedStates(saved_bytes)
        self._orders: deque[Order] = deque()
        self._answers: list[Answer] = []
        self._outgoing: dict[Stream, list[Item]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._ended = False
        self._opened = threading.Event()
        self._opening_failed: BaseException | None = None
        self._beat = time.monotonic()
        self._steps = self._read = self._reused = self._written = 0
        self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)

    def start(self) -> None:
        """Open the context in the thread that will own it, and return when it is there."""
        self._thread.start()
        self._opened.wait()
        if self._opening_failed:
            raise self._opening_failed

    def stop(self) -> bool:
        """End after the current step, and free the context; False if that step does not come to its end."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(self._stuck_seconds)
        return not self._thread.is_alive()

    def submit(self, order: Order) -> None:
        """Have an order carried out; `TemporarilyUnavailable` once the thread has ended."""
        with self._changed:
            if self._ended:
                raise _stopped()
            self._orders.append(order)
            self._changed.notify()

    def cancel(self, order: Order) -> None:
        """Nobody wants the answer any more: its sequence is free before the next step."""
        order.canceled = True
        self.wake()

    def wake(self) -> None:
        """Something has changed: an order was canceled, or the reader of a paused answer has caught up."""
        with self._changed:
            self._changed.notify()

    @property
    def responsive(self) -> bool:
        """Whether the thread lives and has come round for a step lately."""
        return self._thread.is_alive() and time.monotonic() - self._beat < self._stuck_seconds

    def stats(self) -> dict[str, float]:
        """Figures since the start, and of this moment."""
        return {
            "steps_total": self._steps,
            "prompt_tokens_computed_total": self._read,
            "prompt_tokens_reused_total": self._reused,
            "tokens_written_total": self._written,
            "sequences_busy": len(self._answers),
            "saved_state_bytes": self._states.size,
            "seconds_per_prompt_token": round(self._pace.row_seconds or 0.0, 6),
        }

    def _run(self) -> None:
        try:
            context = self._opened_context()
        except BaseException as error:  # noqa: BLE001 - told to whoever starts the thread
            self._opening_failed = error
            self._opened.set()
            return
        self._opened.set()
        self._seats = Seats(context, context.sequences, self._states)
        try:
            while self._next_turn():
                self._release_canceled()
                self._admit(context)
                self._step(context)
                self._hand_over()
        except Exception:  # noqa: BLE001 - readiness fails from here on, and the log says why
            telemetry.logger().exception("engine.died")
        finally:
            with self._changed:
                self._ended = True
                waiting, self._orders = list(self._orders), deque()
            for order in waiting:
                self._tell(order.stream, [_stopped()])
            self._fail(list(self._answers), _stopped())
            self._hand_over()
            context.close()

    def _opened_context(self) -> Context:
        context = self._open_context()
        try:
            context.self_test()
        except BaseException:
            context.close()
            raise
        return context

    def _next_turn(self) -> bool:
        """Wait until there is something to do; False at the end."""
        self._beat = time.monotonic()
        with self._changed:
            if not self._stopping and not self._orders and not any(map(_goes_on, self._answers)):
                self._changed.wait(_BEAT_SECONDS)
            return not self._stopping

    def _release_canceled(self) -> None:
        for answer in [answer for answer in self._answers if answer.order.canceled]:
            self._release(answer)

    def _admit(self, context: Context) -> None:
        while self._seats.free:
            with self._changed:
                if not self._orders:
                    return
                order = self._orders.popleft()
            if not order.canceled:
                self._begin(context, order)

    def _begin(self, context: Context, order: Order) -> None:
        try:
            sampler = context.sampler(order.sampling, order.grammar)
        except SluiceError as error:
            self._tell(order.stream, [error])
            return
        sequence, reused = self._seats.take(order.prompt)
        self._reused += reused
        self._answers.append(Answer(order, sequence, reused, sampler))
        self._tell(order.stream, [Facts(cached_tokens=reused)])

    def _step(self, context: Context) -> None:
        """Every running answer gets its next token; then prompts are read, in what time there is for them.

        In two passes: llama.cpp would take one batch of both apart, and not where its kernels work best.
        """
        # In the order of their sequences: llama.cpp computes neighbours together.
        going_on = sorted(filter(_goes_on, self._answers), key=lambda answer: answer.sequence)
        writers = [answer for answer in going_on if not answer.unread]
        if writers and (seconds := self._pass(context, writers, {})) is not None:
            self._pace.record_writing(len(writers), seconds)
            self._hand_over()
        unread = {answer.sequence: answer.unread for answer in going_on if answer.unread}
        if unread:
            parts = self._turns.shares(unread, self._pace.budget(len(writers), len(unread)))
            readers = [answer for answer in going_on if answer.sequence in parts]
            if (seconds := self._pass(context, readers, parts)) is not None:
                self._pace.record_reading(sum(parts.values()), seconds)

    def _pass(self, context: Context, batch: list[Answer], parts: Mapping[int, int]) -> float | None:
        """Compute the next rows of these answers: seconds, or None if that failed, and they with it, and only they."""
        began = time.monotonic()
        rows, last_rows = rows_of(batch, parts)
        outcome = context.decode(rows)
        if outcome == _NO_ROOM and self._seats.clear_free():
            outcome = context.decode(rows)
        if outcome != _DONE:
            telemetry.logger().error("engine.decode_failed", outcome=outcome, sequences=len(batch), tokens=len(rows))
            full = TemporarilyUnavailable("The model's memory is full.", code="context_full")
            self._fail(batch, full if outcome == _NO_ROOM else DecodeFailed())
            for answer in batch:
                self._seats.clear(answer.sequence)
            return None
        self._steps += 1
        for answer, row in zip(batch, last_rows, strict=True):
            self._go_on(context, answer, parts.get(answer.sequence, 0), row)
        return time.monotonic() - began

    def _go_on(self, context: Context, answer: Answer, read: int, row: int) -> None:
        """Note what a step has computed for an answer, and choose its next token if all of its prompt is read."""
        computed = answer.prompt_part(read) if read else [answer.next_token or 0]
        self._seats.grow(answer.sequence, computed)
        answer.position += len(computed)
        self._read += read
        if answer.unread:
            return
        try:
            token = context.sample(answer.sampler, row)
        except GrammarExhausted as error:
            self._fail([answer], error)
            return
        if self._vocabulary.ends_answer(token):
            self._tell(answer.order.stream, answer.end("stop"))
        else:
            self._written += 1
            self._tell(answer.order.stream, answer.write(token, self._vocabulary.piece(token)))
        if answer.ended:
            self._release(answer)

    def _fail(self, answers: list[Answer], error: Exception) -> None:
        for answer in answers:
            self._tell(answer.order.stream, [error])
            self._release(answer)

    def _release(self, answer: Answer) -> None:
        answer.sampler.close()
        self._answers.remove(answer)
        self._seats.leave(answer.sequence)

    def _tell(self, stream: Stream, items: list[Item]) -> None:
        stream.will_put(len(items))
        self._outgoing.setdefault(stream, []).extend(items)

    def _hand_over(self) -> None:
        """Wake each event loop once for a step, whatever the number of streams."""
        outgoing, self._outgoing = self._outgoing, {}
        for loop in {stream.loop for stream in outgoing}:
            _call(loop, {stream: items for stream, items in outgoing.items() if stream.loop is loop})


def _stopped() -> TemporarilyUnavailable:
    return TemporarilyUnavailable("The model has been stopped.", code="llm_stopped")


def _goes_on(answer: Answer) -> bool:
    return answer.order.canceled or not answer.paused


def _call(loop: AbstractEventLoop, outgoing: dict[Stream, list[Item]]) -> None:
    # A loop that is closed has no readers any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_put_all, outgoing)


def _put_all(outgoing: dict[Stream, list[Item]]) -> None:
    for stream, items in outgoing.items():
        stream.put(items)
