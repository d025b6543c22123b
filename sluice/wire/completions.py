"""LLM's HTTP contract: OpenAI's chat completions and completions, with the passages to answer from as `documents`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

FinishReason = Literal["stop", "length"]

# To put more into a model's words takes minutes, which everybody else would wait.
MOST_MESSAGES = 1000


def _as_list(given: Any) -> Any:
    if given is None:
        return []
    return [given] if isinstance(given, str) else given


def _text_of_parts(content: Any) -> Any:
    """OpenAI's list of content parts as one text, if all of them are text."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise ValueError("only text parts are read here")
    return "".join(str(part.get("text", "")) for part in content)


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_text_of_parts)]


class Passage(BaseModel):
    """A piece of a document that may be quoted (extension; the same member as in vLLM's chat API)."""

    model_config = ConfigDict(extra="ignore")

    id: str = Field(min_length=1, max_length=64, description="How an answer cites the passage: `[id]`")
    title: str = ""
    text: str


class StreamOptions(BaseModel):
    """What a stream tells besides its text."""

    include_usage: bool = False


class JsonSchemaFormat(BaseModel):
    """A schema that an answer must follow. What it is called is for whoever asks."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    name: str | None = None
    description: str | None = None
    strict: bool | None = Field(None, description="Answers follow the schema in any case")
    schema_: Any = Field(alias="schema", description="Judged by the backend: what is no schema is refused with 400")


class ResponseFormat(BaseModel):
    """What an answer looks like: text, any JSON object, or JSON that follows a schema.

    Nothing of it is ignored or supposed: an answer would be free that somebody thinks is bound.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _means_one_thing(self) -> Self:
        if self.json_schema is not None and self.type != "json_schema":
            raise ValueError(f"has a json_schema, and its type is {self.type}: make it json_schema")
        return self


class GenerationParameters(BaseModel):
    """What chat completions and completions have in common. What else a request may say is the service's to judge."""

    model_config = ConfigDict(extra="ignore")

    model: str
    documents: list[Passage] = Field(default=[], max_length=256, description="Extension: passages, best first")
    max_tokens: int | None = Field(default=None, ge=1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=256)]], BeforeValidator(_as_list), Field(max_length=4)
    ] = []
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000, description="Extension; 0: no limit")
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="Extension: least share of the best's probability"
    )
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    repeat_penalty: float | None = Field(default=None, gt=0, le=10, description="Extension: as in llama.cpp")
    seed: int | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = Field(default=None, min_length=1, description="Extension: a GBNF grammar, as in llama.cpp")
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with a chunk that holds the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def token_limit(self) -> int | None:
        """The most tokens that the answer may have."""
        return self.max_tokens


class ChatCompletionRequest(GenerationParameters):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(default=None, ge=1, description="OpenAI's newer name of max_tokens")

    @property
    def token_limit(self) -> int | None:
        """The most tokens that the answer may have."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(GenerationParameters):
    """`POST /v1/completions`."""

    prompt: str = Field(min_length=1)


class PromptTokensDetails(BaseModel):
    """What became of the tokens of a prompt."""

    cached_tokens: int = Field(description="Tokens that had been computed for an earlier request")


class Usage(BaseModel):
    """Tokens read and written, counted as the backend counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_there(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class AnswerMessage(BaseModel):
    """A whole answer."""

    role: Literal["assistant"] = "assistant"
    content: str


class ChatChoice(BaseModel):
    """The one answer to a chat completion."""

    index: int = 0
    message: AnswerMessage
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """The answer of `POST /v1/chat/completions` without `stream`."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(BaseModel):
    """What a chunk adds to the answer."""

    role: Literal["assistant"] | None = None
    content: str | None = None

    @model_serializer(mode="wrap")
    def _only_what_is_there(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if value is not None}


class ChatChunkChoice(BaseModel):
    """The one answer, in a chunk."""

    index: int = 0
    delta: ChatDelta
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(BaseModel):
    """One `data:` of a streamed chat completion; the one with the usage has no choices."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class TextChoice(BaseModel):
    """The one answer to a completion, whole or in a chunk."""

    index: int = 0
    text: str
    logprobs: None = None
    finish_reason: FinishReason | None = None


class TextCompletion(BaseModel):
    """The answer of `POST /v1/completions`, and each chunk of its stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage | None = None


class TokenizeRequest(BaseModel):
    """`POST /tokenize`: one of the two."""

    model_config = ConfigDict(extra="ignore")

    model: str | None = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, max_length=MOST_MESSAGES)


class TokenizeResponse(BaseModel):
    """How a backend splits text. `tokens` is null for a backend without a vocabulary of numbered tokens."""

    count: int
    max_model_len: int
    tokens: list[int] | None
    token_strs: list[str]


class CompletionModelCard(BaseModel):
    """A model that LLM serves; everything behind `owned_by` is an extension."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "sluice"
    version: str
    backend: str
    max_model_len: int


class CompletionModelList(BaseModel):
    """The answer of `GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[CompletionModelCard]
