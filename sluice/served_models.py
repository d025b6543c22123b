"""EMB and LLM as administrators see them: which model each alias means there; and having them follow the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import httpx

from sluice import telemetry
from sluice.errors import TemporarilyUnavailable
from sluice.model_store.manifest import ModelType
from sluice.settings import CompletionClientSettings, EmbeddingClientSettings

AWAY: Final = "away"
_TIMEOUT: Final = httpx.Timeout(5.0, connect=3.0)
# A model of some gigabytes is read, warmed up and tested; the edge waits for two minutes.
_LOADING_SECONDS: Final = 60.0
# EMB's outcomes of a reload after which an alias means what the manifest says.
_LOADED: Final = ("changed", "unchanged")
# LLM refuses while it loads another, and looks at the manifest again afterwards.
_ANOTHER_IS_LOADED: Final = "activation_running"


@dataclass(frozen=True)
class ServedModel:
    """What an alias means at a service that runs."""

    alias: str
    model: str
    """`name@version` of the manifest, or the name of a model that comes from the settings."""
    backend: str
    vectors: str | None = None
    """EMB: the version that stands beside every vector of the index."""


@dataclass(frozen=True)
class ServiceState:
    """EMB or LLM at this moment."""

    type: ModelType
    url: str
    state: str
    """As the service says: ready, loading, draining, failed; `away` if it does not answer."""
    models: Sequence[ServedModel] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why an alias does not mean what it should, by alias."""


class Follows(StrEnum):
    """Whether a service serves what an alias means in the manifest."""

    SERVING = "serving"
    LOADING = "loading"  # it takes too long to be waited for, or begins when another is loaded; it goes on
    REFUSED = "refused"  # the service could not load it, and serves what it served
    ANOTHER = "another"  # it serves something else: it has other settings, or another models folder
    AWAY = "away"  # it loads what the manifest says when it is back


@dataclass(frozen=True)
class Followed:
    """What came of having a service follow the manifest."""

    follows: Follows
    model: str | None = None
    """What the alias means there now, where that is known."""
    problem: str | None = None


class ServedModels:
    """The services that run models. May be used by many threads."""

    def __init__(
        self,
        embedding: EmbeddingClientSettings,
        completion: CompletionClientSettings,
        loading_seconds: float = _LOADING_SECONDS,
    ) -> None:
        """`loading_seconds`: how long `follow` waits for a model to be loaded."""
        self._embedding = embedding
        self._llm_alias = completion.model
        self._urls: dict[ModelType, list[str]] = {
            "embed": list(dict.fromkeys([embedding.url, *(m.url for m in embedding.more_aliases.values() if m.url)])),
            "llm": [completion.url],
        }
        self._http = httpx.Client(timeout=_TIMEOUT)
        self._loading = httpx.Timeout(loading_seconds, connect=3.0)

    def close(self) -> None:
        """Give up the connections."""
        self._http.close()

    def states(self) -> list[ServiceState]:
        """Every service at this moment; those that do not answer are `away`."""
        return [self._state(kind, url) for kind, urls in self._urls.items() for url in urls]

    def index_models(self) -> dict[str, ServedModel]:
        """The model that makes the vectors of each alias of the index now.

        `TemporarilyUnavailable` names the first alias of which that is not known.
        """
        return {alias: self._index_model(alias) for alias in (self._embedding.alias, *self._embedding.more_aliases)}

    def makes_index(self, kind: ModelType, alias: str) -> bool:
        """Whether documents are indexed under this alias."""
        return kind == "embed" and alias in (self._embedding.alias, *self._embedding.more_aliases)

    def follow(self, kind: ModelType, alias: str, model: str) -> Followed:
        """Have the service load what its models folder says now; whether it then serves this model."""
        url = self._url(alias) if kind == "embed" else self._urls["llm"][0]
        path = "/v1/models:reload" if kind == "embed" else f"/v1/models/{alias}:activate"
        try:
            answer = self._http.post(f"{url}{path}", headers=telemetry.http_headers(), timeout=self._loading)
        except httpx.ReadTimeout:
            return Followed(Follows.LOADING)
        except httpx.TransportError:
            return Followed(Follows.AWAY)
        said = _read(answer)
        if model == _now_means(said, kind, alias):
            return Followed(Follows.SERVING, model)
        served = {each.alias: each.model for each in self._state(kind, url).models}.get(alias)
        if answer.is_success:
            return Followed(Follows.ANOTHER, served)
        if said.get("code") == _ANOTHER_IS_LOADED:
            return Followed(Follows.LOADING, served)
        return Followed(Follows.REFUSED, served, _problem(said, alias) or f"It answered {answer.status_code}.")

    def _index_model(self, alias: str) -> ServedModel:
        url = self._url(alias)
        for each in self._state("embed", url).models:
            if each.alias == alias:
                return each
        raise TemporarilyUnavailable(
            f"EMB at {url} serves no model as {alias!r} right now, so nobody can tell what it has not embedded.",
            code="embedder_unavailable",
        )

    def _url(self, alias: str) -> str:
        further = self._embedding.more_aliases.get(alias)
        return (further and further.url) or self._embedding.url

    def _state(self, kind: ModelType, url: str) -> ServiceState:
        try:
            answer = self._http.get(f"{url}/stats", headers=telemetry.http_headers()).raise_for_status()
            stats = answer.json()
            read = self._read_emb if kind == "embed" else self._read_llm
            return read(url, stats)
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return ServiceState(kind, url, AWAY)

    def _read_emb(self, url: str, stats: dict[str, Any]) -> ServiceState:
        models = [
            ServedModel(alias, facts["model"], facts["backend"], facts["version"])
            for alias, facts in stats["models"].items()
        ]
        return ServiceState("embed", url, stats["state"], models, stats["problems"])

    def _read_llm(self, url: str, stats: dict[str, Any]) -> ServiceState:
        models = [ServedModel(self._llm_alias, stats["name"], stats["backend"])] if "name" in stats else []
        refused = stats.get("refused")
        return ServiceState("llm", url, stats["state"], models, {self._llm_alias: refused} if refused else {})


def _read(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _now_means(said: dict[str, Any], kind: ModelType, alias: str) -> str | None:
    """What the alias means after a reload or an activation, as the service itself says."""
    if kind == "llm":
        return said.get("model")
    mine = said.get("aliases", {}).get(alias, {})
    # EMB names the model that it was to load, and beside it what came of that.
    return mine.get("model") if mine.get("outcome") in _LOADED else None


def _problem(said: dict[str, Any], alias: str) -> str | None:
    return said.get("problems", {}).get(alias) or said.get("detail")
