"""The example of Celery, with a real worker in a thread and messages in memory."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from celery.signals import task_postrun

from ducto_redis.errors import InsufficientCreditsError

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "celery_jobs.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module, and a worker that runs its tasks."""
    for name in ("DUCTO_REDIS_URL", "CELERY_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("celery_jobs", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "celery_jobs", module)
    spec.loader.exec_module(module)
    module.app.conf.update(broker_transport_options={"polling_interval": 0.01}, worker_hijack_root_logger=False)
    with module.manager as manager:
        manager.publish_pricing({"version": 1, "measures": ["pages"], "models": {"render": "pages * 0.5"}})
        manager.add_credits("ann", 10)
        with start_worker(module.app, pool="solo", perform_ping_check=False, loglevel="ERROR"):
            yield module


@pytest.fixture
def run(example: ModuleType) -> Iterator[Callable[[str, int], Any]]:
    """Delivers a job, and gives its result when it was done, tried again as often as it is."""
    states: SimpleQueue[str] = SimpleQueue()

    def done(state: str, **_: object) -> None:
        states.put(state)

    def run(job: str, pages: int) -> Any:
        result = example.render.apply_async(("ann", pages), task_id=job)
        while states.get(timeout=20) == "RETRY":
            pass
        return result.get(timeout=20)

    task_postrun.connect(done)
    yield run
    task_postrun.disconnect(done)


def test_example(example: ModuleType, run: Callable[[str, int], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is charged once: delivered twice, tried again after a failure, and not begun where nobody can pay."""
    manager = example.manager
    rendered: list[int] = []
    failures: list[Exception] = []

    def render_page(page: int) -> None:
        rendered.append(page)
        if page == 1 and failures:
            raise failures.pop()

    monkeypatch.setattr(example, "render_page", render_page)
    for delivery in (1, 2):
        assert run("job-1", 3) == "3 pages for ann"
        assert rendered == [0, 1, 2] * delivery
        assert manager.get_available("ann") == Decimal("8.5")

    rendered.clear()
    failures += [ConnectionError("no GPU"), ConnectionError("no GPU")]
    assert run("job-2", 2) == "2 pages for ann"
    assert rendered == [0, 1, 0, 1, 0, 1]
    assert manager.get_balance("ann").held == 0
    assert manager.get_available("ann") == Decimal("7.5")

    with pytest.raises(Exception, match=InsufficientCreditsError.__name__):
        run("job-3", 1000)
    assert len(rendered) == 6
