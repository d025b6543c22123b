"""Answers of a language model in GGUF format, on this machine's processor."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from services.llm.backends.base import Facts, Piece, Prompt
from services.llm.backends.llama_cpp.answer import Order
from services.llm.backends.llama_cpp.control_tokens import Quoting
from services.llm.backends.llama_cpp.engine import Engine
from services.llm.backends.llama_cpp.errors import ModelUnusable
from services.llm.backends.llama_cpp.grammar import checked
from services.llm.backends.llama_cpp.json_schema import grammar_for, grammar_for_any_object
from services.llm.backends.llama_cpp.native import NativeContext, NativeModel
from services.llm.backends.llama_cpp.size import needed_bytes
from services.llm.backends.llama_cpp.stream import Stream
from services.llm.backends.llama_cpp.template import ChatTemplate
from services.llm.candidate import Candidate
from sluice.environment import SettingsError
from sluice.settings import LlmServiceSettings
from sluice.threads import usable_threads
from sluice.wire.asgi import Malformed

# Templates and tokenizers are quick; more threads would take the processor from the model.
_READERS = 2


class LlamaCppBackend:
    """A loaded model, its owner thread, and what turns requests into tokens."""

    name = "llama_cpp"

    def __init__(self, file: Path, settings: LlmServiceSettings) -> None:
        """Load; takes seconds, so not on the event loop. `ModelUnusable` says what is wrong with the file."""
        self._model = NativeModel(file)
        try:
            self._template = _template(self._model, file)
            self._quoting = Quoting(self._model.control_names())
            self._longest_piece = self._model.longest_piece()
            self.slots = settings.sequences
            self.context_tokens = min(settings.context_tokens, self._model.trained_context)
            self._answer_tokens = settings.answer_tokens
            self._threads = settings.threads or usable_threads()
            self._engine = Engine(
                partial(
                    NativeContext,
                    self._model,
                    sequences=self.slots,
                    context_tokens=self.context_tokens,
                    threads=self._threads,
                ),
                self._model,
                target_seconds=settings.inter_token_seconds,
                stuck_seconds=settings.stuck_seconds,
                saved_bytes=settings.prompt_cache_bytes,
            )
            self._engine.start()
        except BaseException:
            self._model.close()
            raise
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="prompts")
        # A grammar may take a second to check, and plain questions do not stand behind it.
        self._grammars = ThreadPoolExecutor(1, thread_name_prefix="grammars")

    @property
    def responsive(self) -> bool:
        """Whether the owner thread has come round for a step lately."""
        return self._engine.responsive

    async def tokens(self, text: str) -> list[str]:
        """The text in the model's tokens."""
        return [piece for _, piece in await self.numbered_tokens(text)]

    async def numbered_tokens(self, text: str) -> list[tuple[int, str]]:
        """The text in the model's tokens, read in another thread, each with its number."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._pieces_of, text)

    async def prepare(self, prompt: Prompt) -> LlamaCppAnswer:
        """Read the request in other threads; `Malformed` says what is wrong with it."""
        self._require_possible(prompt)
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._readers, self._tokens_of, prompt)
        limit = self._limit(len(tokens), prompt)
        bound = prompt.grammar is not None or (prompt.response_format and prompt.response_format.type != "text")
        grammar = await loop.run_in_executor(self._grammars, self._grammar_of, prompt) if bound else None
        return LlamaCppAnswer(self._engine, Order(tokens, limit, prompt.sampling, grammar, Stream(loop)))

    def stats(self) -> dict[str, float]:
        """Figures of the owner thread, and how many threads compute."""
        return {**self._engine.stats(), "threads": self._threads}

    async def close(self) -> None:
        """Stop the owner thread, which frees samplers, batch and context; then free the model.

        A thread that is stuck in a step keeps both: freed under it, they would end the process.
        """
        await asyncio.to_thread(self._freed)

    def _freed(self) -> None:
        ended = self._engine.stop()
        for threads in (self._readers, self._grammars):
            threads.shutdown(wait=ended, cancel_futures=not ended)
        if ended:
            self._model.close()

    def _pieces_of(self, text: str) -> list[tuple[int, str]]:
        tokens = self._model.tokenize(text, special=False, begin=False)
        return [(token, self._model.piece(token).decode(errors="replace")) for token in tokens]

    def _require_possible(self, prompt: Prompt) -> None:
        """Refuse what cannot fit however few tokens it has: finding out how many takes long."""
        characters = sum(len(message.content) for message in prompt.messages)
        if characters > self.context_tokens * self._longest_piece:
            raise Malformed(
                f"The prompt has {characters} characters: more than the {self.context_tokens} tokens of this model's "
                "context can stand for. Send less.",
                code="context_length_exceeded",
                param="messages",
            )

    def _tokens_of(self, prompt: Prompt) -> list[int]:
        if prompt.raw:
            tokens = self._model.tokenize(prompt.messages[0].content, special=True)
        elif self._template is None:
            raise Malformed("This model has no chat template: use /v1/completions.", code="no_chat_template")
        else:
            text = self._template.render(self._quoting.messages(prompt.messages))
            # Many templates write the begin token themselves; two of them are what no model was trained on.
            begins = bool(self._model.begin_token) and text.startswith(self._model.begin_token)
            tokens = self._model.tokenize(text, special=True, begin=not begins)
        if not tokens:
            raise Malformed("The prompt is empty.", code="empty_prompt", param="prompt")
        return tokens

    def _grammar_of(self, prompt: Prompt) -> str | None:
        grammar = _grammar(prompt)
        if grammar is not None:
            self._model.require_grammar(grammar)
        return grammar

    def _limit(self, prompt_tokens: int, prompt: Prompt) -> int:
        """Tokens of the answer: those asked for, else as many as there is room for, up to the usual length."""
        room = self.context_tokens - prompt_tokens
        asked = prompt.max_tokens or 1
        if asked > room:
            raise Malformed(
                f"The prompt has {prompt_tokens} tokens, and {asked} are asked for: together more than the "
                f"{self.context_tokens} of this model's context. Send less, or ask for less.",
                code="context_length_exceeded",
                param="messages" if room < 1 else "max_tokens",
            )
        return prompt.max_tokens or min(self._answer_tokens, room)


class LlamaCppAnswer:
    """A request in tokens."""

    def __init__(self, engine: Engine, order: Order) -> None:
        self._engine = engine
        self._order = order
        self.prompt_tokens = len(order.prompt)
        self.max_tokens = order.max_tokens

    async def pieces(self) -> AsyncGenerator[Piece | Facts, None]:
        """The answer. Closing the generator frees the sequence before the next step."""
        stream = self._order.stream
        self._engine.submit(self._order)
        try:
            while True:
                item = await stream.take()
                if item is None:
                    return
                if stream.reopened:
                    self._engine.wake()
                yield item
        finally:
            self._engine.cancel(self._order)


def candidate(settings: LlmServiceSettings) -> Candidate:
    """The model of `SLUICE_LLM_MODEL_PATH`."""
    file = settings.model_path
    if file is None:
        raise SettingsError("SLUICE_LLM_BACKEND is llama_cpp, so SLUICE_LLM_MODEL_PATH must name a GGUF file.")
    return Candidate(file.stem, partial(LlamaCppBackend, file, settings), partial(needed_bytes, file, settings))


def _template(model: NativeModel, file: Path) -> ChatTemplate | None:
    source = model.chat_template
    if source is None:
        return None
    try:
        return ChatTemplate(source, begin_token=model.begin_token, end_token=model.end_token)
    except ModelUnusable as error:
        raise ModelUnusable(f"{file.name}: {error.detail}") from error


def _grammar(prompt: Prompt) -> str | None:
    wanted = prompt.response_format
    if prompt.grammar is not None:
        if wanted is not None and wanted.type != "text":
            raise Malformed("Send either `grammar` or `response_format`.", code="invalid_grammar", param="grammar")
        return checked(prompt.grammar)
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return grammar_for_any_object()
    if wanted.json_schema is None:
        raise Malformed(
            "The response_format json_schema needs `json_schema`.", code="invalid_json_schema", param="response_format"
        )
    return grammar_for(wanted.json_schema.schema_)
