"""A process that makes first requests: `python -m tests.manager.opening_racer URL NAMESPACE ACCOUNTS`.

Says `ready`, waits for a line, makes a request for each account, of some kind, and says how many were admitted.
"""

import os
import sys
from contextlib import suppress

from ducto_redis import CreditManager
from ducto_redis.errors import CreditError
from ducto_redis.store import RedisStore


def main(url: str, namespace: str, accounts: int) -> None:
    """One of the processes."""
    with CreditManager(RedisStore(url, namespace=namespace, blocking=True, timeout_seconds=30)) as manager:
        manager.load_pricing()
        print("ready", flush=True)
        sys.stdin.readline()
        admitted = 0
        for number in range(accounts):
            account = f"u{number}"
            request = (
                lambda account=account: manager.deduct(account, 1),
                lambda account=account: manager.reserve(account, 1),
                lambda account=account: manager.add_credits(account, 1),
                lambda account=account: manager.deduct(account, 1000),
            )[(number + os.getpid()) % 4]
            with suppress(CreditError):
                request()
                admitted += 1
        print(admitted, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
