"""The conformance suite: what every store must do, as tests.

    pytest --ducto-store=mypkg.testing:make_store

runs it on the stores that a function makes, see `MakeStore`; docs/custom-stores.md shows one. A subclass puts the suite
among tests of your own:

    class TestMyStore(StoreConformance):
        @pytest.fixture
        def make_store(self) -> MakeStore:
            return make_my_store

It needs pytest and pytest-asyncio: pip install 'ducto-redis[conformance]'. Every operation of every test is watched,
see `WatchedStore`. The parts of the suite, such as `LeaseConformance`, are importable by their names too.

pytest imports this package in every project that it is installed beside: nothing here is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ducto_redis.testing.inspection import Snapshot, assert_fold, dump, read_journal
    from ducto_redis.testing.opening import MakeStore, OpenStore
    from ducto_redis.testing.suite import StoreConformance

__all__ = ["MakeStore", "OpenStore", "Snapshot", "StoreConformance", "assert_fold", "dump", "read_journal"]


def __getattr__(name: str) -> Any:
    if name not in __all__ and not name.endswith("Conformance"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.suite"), name)
