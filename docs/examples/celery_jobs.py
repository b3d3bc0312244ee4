"""Celery tasks that charge credits: a task that is delivered twice, or tried again, is charged once.

celery -A celery_jobs worker
"""

import os

from celery import Celery, Task
from celery.signals import worker_process_shutdown

from ducto_redis import CreditManager, UsageMetrics, current_meter

manager = CreditManager.from_url(os.environ.get("DUCTO_REDIS_URL", "memory://"))

app = Celery("celery_jobs", broker=os.environ.get("CELERY_BROKER_URL", "memory://"), backend="cache+memory://")
app.conf.task_acks_late = True  # a task whose worker was killed is delivered again


@worker_process_shutdown.connect
def close(**_: object) -> None:
    """Send the charges that still wait for the engine."""
    manager.close()


def rendering(pages: int) -> UsageMetrics:
    """What the work uses: its price is in the pricing document."""
    return UsageMetrics(model="render", measures={"pages": pages})


@app.task(bind=True, autoretry_for=(ConnectionError,), default_retry_delay=0, max_retries=2)
@manager.metered(
    account=lambda task, user, pages: user,
    estimate=lambda task, user, pages: rendering(pages),
    lease_id=lambda task, user, pages: task.request.id,  # the job, however often it is begun
    on_error="release",  # a run that fails costs nothing: the next one is charged
    when_charged="run",  # delivered once more after it was charged: works again, and costs nothing
)
def render(task: "Task[..., str]", user: str, pages: int) -> str:
    """Render pages for a user, who pays for those that were rendered."""
    for page in range(pages):
        render_page(page)
        current_meter().record(rendering(1))
    return f"{pages} pages for {user}"


def render_page(page: int) -> None:
    """The work."""
