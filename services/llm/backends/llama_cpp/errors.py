"""What can go wrong while the model computes."""

from __future__ import annotations

from sluice.errors import SluiceError
from sluice.wire.asgi import Malformed


class ModelUnusable(SluiceError):
    """The file is not a model that llama.cpp can load."""

    code = "model_unusable"


class DecodeFailed(SluiceError):
    """The model failed while it computed this answer; the log has the details. Ask again."""

    code = "decode_failed"


class GrammarRefused(Malformed):
    """The grammar cannot be read."""

    code = "invalid_grammar"


class GrammarExhausted(Malformed):
    """The grammar leads to a place where no token of the model's vocabulary may follow."""

    code = "grammar_exhausted"
