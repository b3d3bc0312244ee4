"""The charge for an answer at its end: the one place that decides it, for the middleware and for metered clients."""

import logging
from typing import NamedTuple

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, ResponseReader

logger = logging.getLogger("ducto_redis.middleware")


class Outcome(NamedTuple):
    """The end of an answer.

    Attributes:
        charge: what is charged; None for nothing. Work that goes on is named by `charge.later` and charged later.
        reported: whether the charge is the reader's own; False where the answer does not say what it used.
    """

    charge: Charge | None
    reported: bool = True


def conclude(
    request: MeteredRequest,
    reader: ResponseReader,
    reading: BodyReading | None,
    held: UsageMetrics,
    *,
    complete: bool,
) -> Outcome:
    """Return what an answer is charged at its end. A reader that fails loses no charge.

    An answer that could not be read is charged the most that it may have used, of which less may be held. One that was
    cut while the model may have reasoned unseen is charged what is held: what was delivered does not say how long.

    Args:
        request: what was asked for.
        reader: has read the answer.
        reading: fed the reader; None where nothing more is to be fed.
        held: the usage that is held.
        complete: whether the answer came to its end.
    """
    try:
        if reading is not None:
            reading.finish()
            if reading.failed:
                return _unread(request, held)
        charge = reader.charge(complete=complete)
        if not isinstance(charge, Charge | None):
            raise TypeError(f"charge() returned {charge!r}")
        if charge is None or charge.later:
            return Outcome(charge)
        if not complete and request.may_reason_hidden and not reader.knows_usage:
            return Outcome(Charge(held, ("interrupted", "hold_charged")), reported=False)
    except Exception:
        logger.exception("the recogniser failed at the end of an answer, which is charged its worst case")
        return _unread(request, held)
    return Outcome(charge)


def _unread(request: MeteredRequest, held: UsageMetrics) -> Outcome:
    most = request.estimate
    used = held if held.output_tokens > most.output_tokens else most
    return Outcome(Charge(used, ("answer_unread",)), reported=False)
