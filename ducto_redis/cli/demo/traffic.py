"""The customers' traffic: they use the real openai client, and know nothing of credits."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import Struct, field
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient

from ducto_redis.cli.demo.setting import Customer

_AT_ONCE = 6
_MOST_TOKENS = 120
_LONG_ANSWER_TOKENS = 400
_CHUNKS_BEFORE_HANGING_UP = 12
_QUESTIONS = (
    "What is a ledger?",
    "Why does a hold come before the work, and the charge after it?",
    "Explain to a new colleague why every balance can be recomputed from its entries.",
)


class Tally(Struct):
    """The responses that a customer's client saw.

    Attributes:
        sent: calls of the client, each a request if nothing is retried.
        answered, refused: how they ended; refused is 402.
        refusal: the first refusal's message.
        hung_up_after: chunks of the stream that the customer left.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    refusal: str = ""
    hung_up_after: int = 0


class Traffic(Struct):
    """All that the customers saw, by account."""

    tallies: dict[str, Tally] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """Calls of all clients."""
        return sum(tally.sent for tally in self.tallies.values())


OnProgress = Callable[[Customer, Tally], None]


async def drive_traffic(url: str, customers: Sequence[Customer], on_progress: OnProgress) -> Traffic:
    """Let all customers send their requests, several of each at once.

    Args:
        url: the server's.
        customers: who takes part.
        on_progress: called after each request with what its customer saw so far.
    """
    traffic = Traffic({customer.account: Tally() for customer in customers})
    await asyncio.gather(
        *(_act(url, customer, traffic.tallies[customer.account], on_progress) for customer in customers)
    )
    return traffic


async def _act(url: str, customer: Customer, tally: Tally, on_progress: OnProgress) -> None:
    at_once = asyncio.Semaphore(_AT_ONCE)
    # No proxy of this machine is asked, whatever its environment says: nothing leaves the loopback interface.
    http_client = DefaultAsyncHttpxClient(trust_env=False)
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=customer.api_key, http_client=http_client) as client:

        async def request(number: int) -> None:
            async with at_once:
                await _ask(client, customer, tally, number)
                on_progress(customer, tally)

        work = [request(number) for number in range(customer.requests)]
        if customer.hangs_up:
            work.insert(len(work) // 2, _hang_up(client, customer, tally))
        await asyncio.gather(*work)


async def _ask(client: AsyncOpenAI, customer: Customer, tally: Tally, number: int) -> None:
    tally.sent += 1
    question = _QUESTIONS[number % len(_QUESTIONS)]
    try:
        if number % 2:
            stream = await client.chat.completions.create(
                model=customer.model,
                messages=[{"role": "user", "content": question}],
                max_completion_tokens=_MOST_TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for _ in stream:
                pass
        else:
            await client.chat.completions.create(
                model=customer.model,
                messages=[{"role": "user", "content": question}],
                max_completion_tokens=_MOST_TOKENS,
            )
    except APIStatusError as error:
        if error.status_code != 402:
            raise
        tally.refused += 1
        tally.refusal = tally.refusal or _message(error)
    else:
        tally.answered += 1


async def _hang_up(client: AsyncOpenAI, customer: Customer, tally: Tally) -> None:
    tally.sent += 1
    stream = await client.chat.completions.create(
        model=customer.model,
        messages=[{"role": "user", "content": "Recite everything you know."}],
        max_completion_tokens=_LONG_ANSWER_TOKENS,
        stream=True,
    )
    async for _ in stream:
        tally.hung_up_after += 1
        if tally.hung_up_after == _CHUNKS_BEFORE_HANGING_UP:
            break
    await stream.close()


def _message(error: APIStatusError) -> str:
    body = error.body
    return str(body.get("message", error)) if isinstance(body, dict) else str(error)
