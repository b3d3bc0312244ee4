"""The demo's machinery: a real Valkey, a SQLite ledger and its worker, all in a temporary folder."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from ducto_redis.journal import LedgerWorker
from ducto_redis.ledger import Ledger
from ducto_redis.manager import AsyncCreditManager, CreditManager
from ducto_redis.run_sync import run_sync
from ducto_redis.store import store_from_url
from ducto_redis.store.contract import journalled
from ducto_redis.store.embedded import EmbeddedServer

NAMESPACE = "demo"
_STOP_SECONDS = 10.0


class Machinery:
    """Starts when it is entered as a context, and is gone without a trace when it is left.

    Attributes:
        redis_url, ledger_url: where the engine and the ledger are, for other processes too.
        ledger_file: the ledger's SQLite file.
        server_version: such as "Valkey 9.1.0".
        manager: a blocking manager for the one who runs the shop.
        ledger: the ledger.
    """

    redis_url: str
    ledger_url: str
    ledger_file: Path
    server_version: str
    manager: CreditManager
    ledger: Ledger

    def __enter__(self) -> "Machinery":
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def new_manager(self) -> AsyncCreditManager:
        """Return a manager for an application on an event loop."""
        return AsyncCreditManager.from_url(self.redis_url, self.ledger_url, namespace=NAMESPACE)

    def _start(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ducto-demo-")))
        self.redis_url = stack.enter_context(EmbeddedServer.open(folder / "engine")).url
        self.ledger_file = folder / "ledger.db"
        self.ledger_url = f"sqlite:///{self.ledger_file}"
        self.ledger = Ledger.from_url(self.ledger_url)
        stack.callback(self.ledger.close)
        self.ledger.migrate()
        self.manager = CreditManager.from_url(self.redis_url, self.ledger_url, namespace=NAMESPACE)
        stack.enter_context(self.manager)
        info = journalled(self.manager.store, "the demo").redis().info("server")
        self.server_version = f"Valkey {info['valkey_version']}"
        self._start_worker(stack)

    def _start_worker(self, stack: ExitStack) -> None:
        store = store_from_url(self.redis_url, namespace=NAMESPACE, blocking=True)
        stack.callback(lambda: run_sync(store.close()))
        worker = LedgerWorker(store, self.ledger)
        worker.start_thread()
        stack.callback(worker.join, _STOP_SECONDS)
        stack.callback(worker.stop)
