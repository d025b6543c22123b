"""Why a request is refused, with the status and the words that Qdrant uses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Refusal(Exception):
    """The request cannot be carried out; `status` is the HTTP status that Qdrant gives."""

    status = 500


class NotFound(Refusal):
    """No such collection or point."""

    status = 404

    def __str__(self) -> str:
        return f"Not found: {self.args[0]}"


class WrongInput(Refusal):
    """The request asks for something that the collection does not have, or that this server does not do."""

    status = 400

    def __str__(self) -> str:
        return f"Wrong input: {self.args[0]}"


class AlreadyExists(Refusal):
    """The name is taken."""

    status = 409

    def __str__(self) -> str:
        return f"Wrong input: {self.args[0]}"


class BadFormat(Refusal):
    """The body is not a request of this kind."""

    status = 400

    def __str__(self) -> str:
        return f"Format error in JSON body: {self.args[0]}"


class BadValue(Refusal):
    """The body is well formed, but a value in it is outside its range."""

    status = 422

    def __str__(self) -> str:
        return f"Validation error in JSON body: [{self.args[0]}]"


def no_such_collection(name: str) -> NotFound:
    """The refusal that Qdrant gives for a name that is neither a collection nor an alias."""
    return NotFound(f"Collection `{name}` doesn't exist!")


@contextmanager
def engine_refusals() -> Iterator[None]:
    """Turn what the engine raises inside the block into refusals."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:  # the engine raises nothing narrower
        reason = str(error)
        if reason.startswith("No point with id"):
            raise NotFound(reason) from error
        if reason.startswith("Service "):
            raise Refusal(reason) from error
        raise WrongInput(reason) from error
