"""Metered clients without an event loop: the real openai and anthropic clients, against a provider on a port."""

import gc
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from google import genai

from ducto_redis import CreditManager, Payer
from ducto_redis.clients import credit_error, metered, paid_by
from ducto_redis.errors import ConfigError, InsufficientCreditsError, NoAccountError
from ducto_redis.middleware import BadRequestError
from ducto_redis.middleware.recognisers import OpenAIChat
from tests.clients.conftest import FUNDS, MESSAGES, WHOLE, flags
from tests.clients.provider import Provider, document_for

Spent = Callable[..., Decimal]


@pytest.fixture
def plain(provider: Provider) -> Iterator[openai.OpenAI]:
    """A client that is not metered."""
    with openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def client(plain: openai.OpenAI, blocking: CreditManager) -> openai.OpenAI:
    return metered(plain, blocking, account="u1")


def ask(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES, "max_tokens": 100, **options})


def test_plain(client: openai.OpenAI, spent: Spent) -> None:
    """A plain answer is charged when it is there, and its headers say what it cost."""
    raw = client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES, max_tokens=100)
    assert raw.headers["x-credits-charged"] == "0.21"
    assert raw.headers["x-credits-remaining"] == "99.79"
    assert raw.elapsed.total_seconds() > 0
    assert raw.parse().choices[0].message.content == "hello"
    assert spent() == WHOLE


def test_streamed(client: openai.OpenAI, provider: Provider, blocking: CreditManager, spent: Spent) -> None:
    """A stream is charged what it reports, though its caller asked for no report and gets none."""
    chunks = list(ask(client, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "x" * 20 + "y" * 20
    assert provider.bodies[0]["stream_options"] == {"include_usage": True}
    assert spent() == WHOLE
    assert flags(blocking) == [[]]


def test_a_report_that_was_asked_for_is_given(client: openai.OpenAI, spent: Spent) -> None:
    """A caller who asks for the usage of a stream gets it."""
    *_, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert last.usage.completion_tokens == 20
    assert spent() == WHOLE


def test_a_stream_shows_what_is_held(client: openai.OpenAI, spent: Spent) -> None:
    """The headers of a stream say what is held while it runs."""
    with client.chat.completions.with_streaming_response.create(
        model="m", messages=MESSAGES, max_tokens=100, stream=True
    ) as response:
        assert Decimal(response.headers["x-credits-reserved"]) > 1
        text = b"".join(response.iter_bytes())
    assert text.endswith(b"data: [DONE]\n\n")
    assert spent() == WHOLE


def test_closed_early(client: openai.OpenAI, provider: Provider, blocking: CreditManager, spent: Spent) -> None:
    """A stream that its caller closes is charged what was delivered, and the provider is told to stop."""
    provider.endless = True
    with ask(client, stream=True) as stream:
        assert next(stream).choices[0].delta.content == "x" * 20
        assert blocking.get_balance("u1").held > 0
    assert provider.left.wait(10)
    assert 0 < spent() < WHOLE
    assert flags(blocking) == [["interrupted", "usage_counted"]]


def test_dropped(provider: Provider, blocking: CreditManager) -> None:
    """A stream that its caller neither ends nor closes is charged once nobody has it any more."""
    provider.endless = True
    with httpx2.Client(base_url=provider.url) as http_client:
        client = metered(http_client, blocking, account="u1")
        question = {"model": "m", "messages": MESSAGES, "stream": True}
        response = client.send(client.build_request("POST", "/v1/chat/completions", json=question), stream=True)
        response.stream._answer.close()  # type: ignore[attr-defined]  # what the collector would do, with a warning
        del response
        gc.collect()
        blocking.close()
    with CreditManager(blocking.store) as manager:
        balance = manager.get_balance("u1")
    assert balance.held == 0
    assert 0 < FUNDS - balance.balance < WHOLE


def test_an_error_releases_its_hold_at_once(provider: Provider, blocking: CreditManager) -> None:
    """Whoever gets an error and tries again finds the hold released, before the error's body was read."""
    provider.failures = [500]
    with metered(httpx2.Client(base_url=provider.url), blocking, account="u1") as client:
        question = {"model": "m", "messages": MESSAGES, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=question) as response:
            assert response.status_code == 500
            assert "x-credits-reserved" not in response.headers
            assert blocking.get_balance("u1").held == 0


def test_refused_by_the_provider(client: openai.OpenAI, provider: Provider, spent: Spent) -> None:
    """An error of the provider's is its caller's, and costs nothing."""
    provider.failures = [400]
    with pytest.raises(openai.BadRequestError, match="no") as caught:
        ask(client)
    assert credit_error(caught.value) is None
    assert spent() == 0


@pytest.mark.parametrize("stream", [False, True])
def test_tried_again(client: openai.OpenAI, provider: Provider, spent: Spent, stream: bool) -> None:
    """An attempt that failed releases its hold; the one that succeeds is charged."""
    provider.failures = [500]
    answer = ask(client.with_options(max_retries=1), stream=stream)
    if stream:
        list(answer)
    assert len(provider.bodies) == 2
    assert spent() == WHOLE


def test_unreachable(client: openai.OpenAI, spent: Spent) -> None:
    """A provider that nobody reaches costs nothing."""
    with pytest.raises(openai.APIConnectionError):
        ask(client.with_options(base_url="http://127.0.0.1:1/v1"))
    assert spent() == 0


def test_a_plain_answer_that_breaks_off(client: openai.OpenAI, provider: Provider, spent: Spent) -> None:
    """A plain answer that breaks off gives its caller nothing, and costs nothing."""
    provider.breaks = True
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    assert spent() == 0


def test_a_stream_that_breaks_off(client: openai.OpenAI, provider: Provider, spent: Spent) -> None:
    """A stream that breaks off is charged what was delivered."""
    provider.breaks = True
    stream = ask(client, stream=True)
    assert next(stream).choices[0].delta.content == "x" * 20
    with pytest.raises(openai.APIConnectionError):
        next(stream)
    assert 0 < spent() < WHOLE


def test_refused(client: openai.OpenAI, provider: Provider, spent: Spent) -> None:
    """Who can't pay gets the client's own error at once, with the error behind it; the provider is not asked."""
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client.with_options(max_retries=5), max_tokens=1_000_000)
    assert caught.value.status_code == 402
    assert caught.value.code == "insufficient_credits"
    error = credit_error(caught.value)
    assert isinstance(error, InsufficientCreditsError)
    assert error.available == FUNDS
    assert provider.bodies == []
    assert spent() == 0


def test_a_request_that_cannot_be_read(client: openai.OpenAI, provider: Provider) -> None:
    """A request that makes no sense is refused as the provider would refuse it."""
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, max_tokens=-1)
    assert isinstance(credit_error(caught.value), BadRequestError)
    assert provider.bodies == []


def test_nobody_pays(plain: openai.OpenAI, blocking: CreditManager, provider: Provider) -> None:
    """Without an account a call is refused with 401."""
    for account in (None, lambda request: None, "", "x" * 300):
        with pytest.raises(openai.AuthenticationError) as caught:
            ask(metered(plain, blocking, account=account))
        assert isinstance(credit_error(caught.value), NoAccountError)
    assert provider.bodies == []


def test_accounts(plain: openai.OpenAI, blocking: CreditManager, spent: Spent) -> None:
    """A function of the request says who pays; `paid_by` goes before it, for its thread alone."""
    for account in ("u2", "u3"):
        blocking.add_credits(account, FUNDS)
    client = metered(plain, blocking, account=lambda request: request.headers["x-user"])
    headers = {"x-user": "u1"}
    ask(client, extra_headers=headers)
    with paid_by("u2"):
        ask(client, extra_headers=headers)
        with paid_by(Payer("u3", operation_type="research")):
            ask(client, extra_headers=headers)
        elsewhere = threading.Thread(target=ask, args=(client,), kwargs={"extra_headers": headers})
        elsewhere.start()
        elsewhere.join()
        ask(client, extra_headers=headers)
    assert (spent(), spent("u2"), spent("u3")) == (2 * WHOLE, 2 * WHOLE, WHOLE)


def test_a_budget(client: openai.OpenAI, provider: Provider, blocking: CreditManager, spent: Spent) -> None:
    """What runs inside of a meter spends from its lease, and no more than that; the rest goes back."""
    with blocking.meter("u1", estimate="1.2") as budget, paid_by(budget):
        ask(client)
        assert blocking.get_balance("u1").balance == FUNDS - WHOLE
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client)
        assert caught.value.status_code == 402
        error = credit_error(caught.value)
        assert isinstance(error, InsufficientCreditsError)
        assert error.available == Decimal("1.2") - WHOLE
    assert len(provider.bodies) == 1
    assert spent() == WHOLE


def test_metered_again(client: openai.OpenAI, plain: openai.OpenAI, blocking: CreditManager, spent: Spent) -> None:
    """A client that is metered already is charged once; the client that was given stays as it was."""
    blocking.add_credits("u2", FUNDS)
    ask(metered(client, blocking, account="u2").with_options(timeout=5))
    ask(plain)
    assert (spent(), spent("u2")) == (0, WHOLE)


def test_other_endpoints(client: openai.OpenAI, provider: Provider, spent: Spent) -> None:
    """What costs nothing passes; embeddings are metered as chats are."""
    assert list(client.models.list()) == []
    assert spent() == 0
    assert client.embeddings.create(model="m", input="hello").data[0].embedding == [0.5]
    assert spent() == Decimal("0.01")


def test_unknown_routes(
    plain: openai.OpenAI, blocking: CreditManager, provider: Provider, spent: Spent, caplog: pytest.LogCaptureFixture
) -> None:
    """A request of no API that is known passes, which the log says once; or it is refused, and not sent."""
    client = metered(plain, blocking, account="u1")
    for _ in range(2):
        client.post("/batches", body={"x": 1}, cast_to=object)
    assert len(provider.bodies) == 2
    assert [record.message for record in caplog.records if "/batches" in record.message] == [
        "no recogniser knows POST /v1/batches, which is let pass without a charge"
    ]
    strict = metered(plain, blocking, account="u1", unknown_routes="refuse")
    with pytest.raises(openai.NotFoundError, match="route"):
        strict.post("/batches", body={"x": 1}, cast_to=object)
    assert list(strict.models.list()) == []
    assert len(provider.bodies) == 3
    assert spent() == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda http: openai.AzureOpenAI(
            azure_endpoint="https://azure", api_key="k", api_version="v", azure_deployment="m", http_client=http
        ),
        lambda http: anthropic.AnthropicVertex(region="r", project_id="p", access_token="t", http_client=http),
        lambda http: anthropic.AnthropicBedrock(aws_region="r", api_key="k", http_client=http),
    ],
    ids=["azure", "vertex", "bedrock"],
)
def test_other_platforms(make: Callable[[Any], Any], blocking: CreditManager, spent: Spent) -> None:
    """The clients' variants for other platforms are metered as well."""

    def answer(request: Any) -> httpx2.Response:
        return httpx2.Response(200, json=document_for("/chat" if request.url.host == "azure" else "/messages"))

    client = metered(make(httpx2.Client(transport=httpx2.MockTransport(answer))), blocking, account="u1")
    if isinstance(client, openai.AzureOpenAI):
        ask(client)
    else:
        client.messages.create(model="m", messages=MESSAGES, max_tokens=100)
    assert spent() == WHOLE


def test_google_genai(provider: Provider, blocking: CreditManager, spent: Spent) -> None:
    """The google-genai client takes a metered HTTP client."""
    with metered(httpx2.Client(), blocking, account="u1") as http_client:
        options = genai.types.HttpOptions(base_url=provider.url, httpx_client=http_client)
        client = genai.Client(api_key="k", http_options=options)
        assert client.models.generate_content(model="m", contents="hello").text == "hello"
    assert spent() == WHOLE


def test_in_the_background(client: openai.OpenAI, blocking: CreditManager, spent: Spent) -> None:
    """A response in the background stays held, and is charged once by the call that sees it finished."""
    started = client.responses.create(model="m", input="hello", background=True, max_output_tokens=100)
    assert started.status == "queued"
    assert blocking.get_balance("u1").held > 1
    for _ in range(2):
        assert client.responses.retrieve(started.id).status == "completed"
        assert spent() == WHOLE


@pytest.mark.parametrize("stream", [False, True])
def test_compressed(client: openai.OpenAI, provider: Provider, spent: Spent, stream: bool) -> None:
    """Compressed answers are read, and given decoded."""
    provider.compressed = True
    answer = ask(client, stream=stream)
    if stream:
        assert "".join(chunk.choices[0].delta.content for chunk in answer) == "x" * 20 + "y" * 20
    else:
        assert answer.choices[0].message.content == "hello"
    assert spent() == WHOLE


def test_closing(provider: Provider, blocking: CreditManager) -> None:
    """Closing the copy closes the client that it was made of."""
    plain = openai.OpenAI(api_key="k", base_url=provider.url)
    with metered(plain, blocking, account="u1") as client:
        assert not client.is_closed()
    assert client.is_closed()
    assert plain.is_closed()


def test_anthropic(provider: Provider, blocking: CreditManager, spent: Spent) -> None:
    """The anthropic client, plain, streamed, closed early and refused."""
    with metered(anthropic.Anthropic(api_key="k", base_url=provider.url), blocking, account="u1") as client:
        asked: Any = {"model": "m", "messages": MESSAGES, "max_tokens": 100}
        assert client.messages.create(**asked).usage.output_tokens == 20
        assert spent() == WHOLE
        with client.messages.stream(**asked) as stream:
            assert stream.get_final_text() == "x" * 20
        assert spent() == 2 * WHOLE
        assert flags(blocking) == [[], []]
        provider.endless = True
        with client.messages.create(**asked, stream=True) as events:
            assert next(events).type == "message_start"
        assert 2 * WHOLE < spent() < 3 * WHOLE
        with pytest.raises(anthropic.APIStatusError) as caught:
            client.messages.create(**{**asked, "max_tokens": 20_000})
    assert caught.value.status_code == 402
    assert caught.value.body["error"]["type"] == "billing_error"  # type: ignore[index]
    assert isinstance(credit_error(caught.value), InsufficientCreditsError)


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_http_clients(http: Any, provider: Provider, blocking: CreditManager, spent: Spent) -> None:
    """What takes an HTTP client takes a metered one, of httpx and of httpx2."""
    with metered(http.Client(base_url=provider.url, headers={"x-mine": "1"}), blocking, account="u1") as client:
        assert isinstance(client, http.Client)
        answer = client.post("/v1/chat/completions", json={"model": "m", "messages": MESSAGES})
        assert answer.json()["usage"]["completion_tokens"] == 20
        assert answer.request.headers["x-mine"] == "1"
        refused = client.post("/v1/chat/completions", json={"model": "m", "max_tokens": 1_000_000})
        assert refused.status_code == 402
        assert client.get("/v1/models").status_code == 200
        with openai.OpenAI(api_key="k", base_url=f"{provider.url}/v1", http_client=client) as given:
            list(ask(given, stream=True))
    assert spent() == 2 * WHOLE


@pytest.mark.parametrize(
    ("fails_in", "failing"), [("document", None), ("charge", None), ("charge", lambda complete: 7)]
)
def test_a_recogniser_that_fails(
    plain: openai.OpenAI, blocking: CreditManager, spent: Spent, fails_in: str, failing: Any
) -> None:
    """A reader that fails spoils no answer, which is charged its worst case."""

    class Failing(OpenAIChat):
        def read_response(self, request: Any, estimates: Any) -> Any:
            reader = super().read_response(request, estimates)
            setattr(reader, fails_in, failing)
            return reader

    answer = ask(metered(plain, blocking, account="u1", recognisers=[Failing()]))
    assert answer.choices[0].message.content == "hello"
    assert spent() > 1


def test_headers_of_an_answer(plain: openai.OpenAI, blocking: CreditManager) -> None:
    """The reader of an answer gets its status and headers before its body."""
    began: list[tuple[int, bytes]] = []

    class Seeing(OpenAIChat):
        def read_response(self, request: Any, estimates: Any) -> Any:
            reader: Any = super().read_response(request, estimates)
            reader.begin = lambda status, headers: began.append((status, headers.get(b"content-type")))
            return reader

    ask(metered(plain, blocking, account="u1", recognisers=[Seeing()]))
    assert began == [(200, b"application/json")]


def test_usage_without_a_price(plain: openai.OpenAI, blocking: CreditManager, spent: Spent) -> None:
    """Usage that can't be priced is charged its hold: it was used, and its caller could do nothing about it."""
    blocking.publish_pricing({"version": 2, "models": {"m": "1 if input_tokens > 50 else 1 / (output_tokens - 20)"}})
    ask(metered(plain, blocking, account="u1"))
    assert spent() == 1


def test_wrong_arguments(plain: openai.OpenAI, blocking: CreditManager) -> None:
    """A client of another kind, or a setting that can't be, is told at once."""
    wrong: Any
    for wrong in (object(), "client", None):
        with pytest.raises(ConfigError, match="openai, anthropic or httpx"):
            metered(wrong, blocking)
    with pytest.raises(ConfigError, match="AsyncCreditManager"):
        metered(openai.AsyncOpenAI(api_key="k"), blocking)
    with pytest.raises(ConfigError, match="OpenAIChat"):
        wrong = ["chat"]
        metered(plain, blocking, recognisers=wrong)
    with pytest.raises(ConfigError, match="unknown_routes"):
        wrong = "ignore"
        metered(plain, blocking, unknown_routes=wrong)
    with pytest.raises(ConfigError, match="coroutine"):

        async def account(request: Any) -> str:
            return "u1"

        metered(plain, blocking, account=account)
    wrong = lambda request: 7  # noqa: E731
    with pytest.raises(ConfigError, match="int"):
        ask(metered(plain, blocking, account=wrong))
