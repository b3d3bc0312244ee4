"""Requests that are paid out of a run's lease, which their Payer names."""

from collections.abc import Callable
from decimal import Decimal

from starlette.types import ASGIApp, Receive, Scope, Send

from ducto_redis import AsyncCreditManager, Payer
from tests.middleware.asgi import answering, call, completion
from tests.middleware.conftest import Accounts

Metered = Callable[..., ASGIApp]


def of_run(scope: Scope) -> Payer:
    run = dict(scope["headers"]).get(b"x-run")
    return Payer("u1", parent=run.decode() if run else None)


async def test_a_request_is_paid_by_its_run(metered: Metered, manager: AsyncCreditManager, accounts: Accounts) -> None:
    """It holds and is charged inside of the run's lease, and its rest goes back there."""
    await manager.reserve("u1", 50, lease_id="run")
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([lease.parent for lease in await manager.list_leases("u1")])
        await answering(completion(prompt=10, output=20))(scope, receive, send)

    answer = await call(metered(app, account=of_run), headers={"x-run": "run"})
    assert answer.credits == {"x-credits-charged": "0.21", "x-credits-remaining": "50"}
    assert sorted(seen, key=str) == [None, "run"]
    assert await accounts.held() == Decimal("49.79")


async def test_a_request_that_its_run_cannot_pay(metered: Metered, manager: AsyncCreditManager) -> None:
    """402 names what the run has left, though the account has plenty; the application does not run."""
    await manager.reserve("u1", 1, lease_id="run")
    answer = await call(metered(answering(completion()), account=of_run), headers={"x-run": "run"})
    assert answer.status == 402
    assert answer.error["available"] == "1"
    assert (await call(metered(answering(completion()), account=of_run))).status == 200


async def test_a_request_of_a_run_that_is_over(
    metered: Metered, manager: AsyncCreditManager, accounts: Accounts
) -> None:
    """A run that was closed, or never was, pays for nothing: 409."""
    await manager.reserve("u1", 50, lease_id="run")
    await manager.release("u1", "run")
    for run in ("run", "another"):
        answer = await call(metered(answering(completion()), account=of_run), headers={"x-run": run})
        assert answer.status == 409
        assert answer.headers["x-should-retry"] == "false"
    assert await accounts.spent() == 0
