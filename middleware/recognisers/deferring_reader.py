"""A base for response readers that parse delivered text only where it can change the charge."""

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest
from ducto_redis.middleware.recognisers.usage_reader import LONGEST_NAME, UsageReader
from ducto_redis.middleware.sse import ServerSentEventParser

# The bytes that a stream may keep unparsed; a longer one is counted piece by piece.
_MOST_SKIPPED = 64 * 2**10
_DONE = b"data: [DONE]\n\n"


class DeferringReader(UsageReader):
    """A reader for streams of server-sent events in which few events report anything.

    Delivered text matters only where no report covers it. So events without any of `report_fields` are kept as they
    were sent, and parsed only if the stream ends without a report, is cut after one, or becomes too long to be kept.
    """

    _tier_reported = False
    _skipped_bytes = 0
    _skipped_before_report = 0

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        super().__init__(request, estimates)
        self._skipped: list[bytes] = []

    def take_plain_text(self, events: bytes) -> bool:
        """Read one event with text and nothing else by a fast path. Returns False for anything else."""
        return False

    def take_report(self, usage: UsageMetrics, *, whole: bool = True) -> None:
        """Take a report: totals so far. `whole` is False where a part of the report made no sense."""
        self.reported = usage
        self.invalid = not whole
        self.delivered_since_report = False
        self._tier_reported = False
        self._skipped_before_report = len(self._skipped)

    def take_tier(self, tier: object, *, reported: bool = True) -> None:
        """Take the service tier that served the request, if it is one. `reported`: it comes with the last report."""
        if isinstance(tier, str):
            if 1 <= len(tier.encode(errors="replace")) <= LONGEST_NAME:
                self.service_tier = tier
            self._tier_reported = self._tier_reported or reported

    def skipped(self, events: bytes) -> None:
        """Keep events that report nothing, in case they must be counted."""
        self._skipped.append(events)
        self._skipped_bytes += len(events)
        if self._skipped_bytes > _MOST_SKIPPED:
            self._read_skipped()

    @property
    def delivered_tokens(self) -> int:
        """Output tokens that were delivered so far, as counted."""
        if self._skipped:
            self._read_skipped()
        return super().delivered_tokens

    @property
    def tokens_to_cover(self) -> int:
        """Output tokens that the hold must cover by now: what was reported and has come since, and rather too many."""
        if self._skipped:
            self._read_skipped()
        return super().tokens_to_cover

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, or the counted one where no report is usable; None for an error."""
        if self._skipped:
            self._read_what_matters()
        return super().charge(complete=complete)

    def _read_what_matters(self) -> None:
        """Parse the skipped events that can change the charge."""
        if self.reported is None:
            self._read_skipped()
            return
        after = self._skipped[self._skipped_before_report :]
        del self._skipped[self._skipped_before_report :]
        self._parse(after)
        if self.delivered_since_report or not (
            self._tier_reported or not any(b'"service_tier"' in events for events in self._skipped)
        ):
            self._read_skipped()

    def _read_skipped(self) -> None:
        before, after = self._skipped[: self._skipped_before_report], self._skipped[self._skipped_before_report :]
        self._skipped = []
        self._skipped_bytes = self._skipped_before_report = 0
        if before:
            # Events before the report are only counted, and name the tier where the report does not.
            known = self.reported, self.invalid, self.delivered_since_report
            tier = self.service_tier
            self._parse(before)
            self.reported, self.invalid, self.delivered_since_report = known
            if self._tier_reported:
                self.service_tier = tier
        self._parse(after)

    def _parse(self, skipped: list[bytes]) -> None:
        if not skipped or skipped == [_DONE]:
            self.done = self.done or bool(skipped)
            return
        for events in skipped:
            if not self.take_plain_text(events):
                parser = ServerSentEventParser()
                # Only the start of a stream can have the mark that a parser leaves out.
                for event in parser.feed(b"\n" + events):
                    self.event(event)
                self.unread_bytes += parser.skipped_bytes
