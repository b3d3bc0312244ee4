"""A process with one Realtime session, which has charged a response and hangs in the next: to be killed.

python -m tests.middleware.hanging_session URL NAMESPACE
"""

import asyncio
import sys

from starlette.types import Receive, Scope, Send

from ducto_redis import AsyncCreditManager
from ducto_redis.middleware import Holds, MeteringMiddleware
from ducto_redis.middleware.recognisers import OpenAIRealtime
from tests.middleware.sockets import Connection, created, done, text_message


async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})
    await send(text_message(created()))
    await send(text_message(done()))
    await send(text_message(created("resp_2")))
    print("running", flush=True)
    await asyncio.Event().wait()


async def main(url: str, namespace: str) -> None:
    async with AsyncCreditManager.from_url(url, namespace=namespace) as manager:
        app = MeteringMiddleware(
            hanging,
            manager=manager,
            account=lambda scope: "u1",
            sockets=[OpenAIRealtime(hold_input_tokens=100, hold_output_tokens=10)],
            holds=Holds(ttl_seconds=1),
        )
        await Connection().run(app)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
