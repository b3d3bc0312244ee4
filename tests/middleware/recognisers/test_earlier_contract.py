"""Recognisers written for the last release's contract work for one release more, and say what is to be changed."""

import json
import warnings
from typing import Any

import pytest

from ducto_redis import middleware
from ducto_redis.middleware import Charge, Estimates, MeteredRequest, Recogniser, recognisers
from ducto_redis.middleware.api_request import ApiRequest, api_request
from ducto_redis.middleware.recognisers import OpenAIChat, OpenAIRealtime, SessionReader
from tests.middleware.asgi import scope
from tests.middleware.sockets import handshake

BODY = json.dumps({"model": "m", "max_tokens": 7, "messages": []}).encode()
EARLIER = "is deprecated: use read_re"
REQUEST = api_request(scope(headers={"x-limit": "3"}), BODY)


def earlier() -> type[Recogniser]:
    """A subclass of a known recogniser, whose methods are those of the last release."""

    class Earlier(OpenAIChat):
        def read_request(self, body: bytes, scope: Any, estimates: Estimates) -> MeteredRequest:  # type: ignore[override]
            assert (body, scope["path"]) == (BODY, "/v1/chat/completions")
            return super().read_request(body, scope, estimates)  # type: ignore[call-arg,arg-type]

        def read_answer(self, request: MeteredRequest, estimates: Estimates) -> Any:
            reader = super().read_answer(request, estimates)
            reader.document(b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}')
            return reader

    return Earlier


@pytest.fixture(autouse=True)
def _present_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier recogniser changes in the known ones is taken back."""
    for known in (OpenAIChat, OpenAIRealtime):
        for name in ("read_request", "read_session"):
            if name in vars(known):
                monkeypatch.setattr(known, name, vars(known)[name])
    for each in Recogniser.__subclasses__():
        for one in (each, *each.__subclasses__()):
            if "read_request" in vars(one):
                monkeypatch.setattr(one, "read_request", vars(one)["read_request"])


def test_methods_of_the_last_release() -> None:
    """They are warned about where the class is defined, called as they were, and may call those they override."""
    with pytest.warns(DeprecationWarning, match="Earlier.read_") as warned:
        kind = earlier()
    assert [warning.filename for warning in warned] == [__file__] * 2
    assert "read_request(request, estimates)" in str(warned[0].message)
    assert "read_response" in str(warned[1].message)
    recogniser = kind()
    request = recogniser.read_request(REQUEST, Estimates())
    assert request.output_limit == 7
    with pytest.warns(DeprecationWarning, match="use read_response"):
        reader = recogniser.read_response(request, Estimates())
    charge = reader.charge(complete=True)
    assert isinstance(charge, Charge)
    assert charge.usage.output_tokens == 2


def test_a_subclass_of_one() -> None:
    """Overriding an earlier recogniser in the earlier way, or in the present one, works too."""
    with pytest.warns(DeprecationWarning, match=EARLIER):
        kind: Any = earlier()
    with pytest.warns(DeprecationWarning, match=EARLIER):

        class Again(kind):  # type: ignore[misc]
            def read_request(self, body: bytes, scope: Any, estimates: Estimates) -> Any:
                return super().read_request(body, scope, estimates)

            def read_answer(self, request: MeteredRequest, estimates: Estimates) -> Any:
                return super().read_answer(request, estimates)

    class Present(kind):  # type: ignore[misc]
        def read_request(self, request: ApiRequest, estimates: Estimates) -> Any:
            return super().read_request(request, estimates)

    for recogniser in (Again(), Present()):
        request = recogniser.read_request(REQUEST, Estimates())
        assert request.output_limit == 7
        with pytest.warns(DeprecationWarning, match="use read_response"):
            assert recogniser.read_response(request, Estimates()).charge(complete=True).usage.output_tokens == 2


def test_delegating_to_a_known_recogniser() -> None:
    """A recogniser that hands its own arguments to another one gets an answer."""
    with pytest.warns(DeprecationWarning, match=EARLIER):

        class Delegating(Recogniser):
            def read_request(self, body: bytes, scope: Any, estimates: Estimates) -> Any:  # type: ignore[override]
                return OpenAIChat().read_request(body, scope, estimates)  # type: ignore[call-arg,arg-type]

            def read_answer(self, request: MeteredRequest, estimates: Estimates) -> Any:
                return OpenAIChat().read_response(request, estimates)

    recogniser = Delegating()  # type: ignore[abstract]
    request = recogniser.read_request(REQUEST, Estimates())
    assert request.output_limit == 7
    assert recogniser.read_response(request, Estimates())


def test_sockets_of_the_last_release() -> None:
    """A recogniser of WebSockets gets the scope where it asks for that."""
    with pytest.warns(DeprecationWarning, match="read_session"):

        class Earlier(OpenAIRealtime):
            def read_session(self, scope: Any, estimates: Estimates) -> SessionReader:  # type: ignore[override]
                assert scope["query_string"] == b"model=voice"
                return super().read_session(scope, estimates)

    session = Earlier().read_session(api_request(handshake()), Estimates())
    assert session.next_estimate().model == "voice"


def test_the_present_contract_warns_of_nothing() -> None:
    """Recognisers with the present methods are left as they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        class Present(OpenAIChat):
            def read_request(self, request: ApiRequest, estimates: Estimates) -> MeteredRequest:
                return super().read_request(request, estimates)

        assert Present().read_request(REQUEST, Estimates()).output_limit == 7


@pytest.mark.parametrize("module", [middleware, recognisers])
def test_names_of_the_last_release(module: Any) -> None:
    """The class of readers is found under its old name."""
    with pytest.warns(DeprecationWarning, match="ResponseReader"):
        assert module.AnswerReader is recognisers.ResponseReader


@pytest.mark.parametrize("name", ["OpenAIChat", "GenaiPrices", "VertexPredict"])
def test_recognisers_where_they_were(name: str) -> None:
    """Recognisers are found in the middleware's own module still."""
    with pytest.warns(DeprecationWarning, match=f"use ducto_redis.middleware.recognisers.{name}"):
        assert getattr(middleware, name) is getattr(recognisers, name)
