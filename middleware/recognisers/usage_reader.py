"""Bases for response readers: the latest report, or a count of the delivered text where there is none.

`UsageReader` parses every event. `DeferringReader` parses delivered text only where it can change the charge.
"""

import json
from collections.abc import Iterable
from functools import partial

import msgspec
from msgspec import structs

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware.estimates import Estimates, most_tokens
from ducto_redis.middleware.recognisers.base import Charge, MeteredRequest, ResponseReader
from ducto_redis.middleware.sse import ServerSentEventParser

LONGEST_NAME = 128
"""The bytes of a service tier's name, at most."""

# The bytes that a stream may keep unparsed; a longer one is counted piece by piece.
_MOST_SKIPPED = 64 * 2**10
_DONE = b"data: [DONE]\n\n"

_decoder = msgspec.json.Decoder()


class UsageReader(ResponseReader):
    """A reader for an API whose responses report their usage.

    A subclass finds reports and delivered text in documents and events, and hands them to `take_report` and `deliver`.
    Reports are cumulative: the last one counts.
    """

    reported: UsageMetrics | None = None
    invalid = False
    failed = False
    done = False
    of_another_shape = False
    delivered_since_report = False
    _delivered_bytes = 0
    _delivered_beyond_ascii = 0
    _delivered_pieces = 0
    _pieces_to_cover = 0
    _counted_to_cover = 0
    _report_to_cover: UsageMetrics | None = None
    _counted_at_report = 0

    def __init__(self, request: MeteredRequest, estimates: Estimates) -> None:
        self.request = request
        self.estimates = estimates
        self.service_tier = request.estimate.service_tier
        self._delivered_text: list[str] | None = None if estimates.count_tokens is None else []

    def take_report(self, usage: UsageMetrics, *, whole: bool = True) -> None:
        """Take a report: totals so far. `whole` is False where a part of the report made no sense."""
        self.reported = usage
        self.invalid = not whole
        self.delivered_since_report = False

    def take_tier(self, tier: object) -> None:
        """Take the service tier that served the request, if it is one."""
        if isinstance(tier, str) and 1 <= len(tier.encode(errors="replace")) <= LONGEST_NAME:
            self.service_tier = tier

    def deliver(self, text: str) -> None:
        """Count text of any kind that the provider charges as output."""
        if not text:
            return
        size = len(text)
        if not text.isascii():
            ascii_size = len(text.encode("ascii", "ignore"))
            size = len(text.encode(errors="surrogatepass"))
            self._delivered_beyond_ascii += size - ascii_size
        self._delivered_bytes += size
        self._delivered_pieces += 1
        self.delivered_since_report = True
        if self._delivered_text is not None:
            self._delivered_text.append(text)

    def deliver_all(self, text: bytes) -> None:
        """Count a response of another shape, as an application's own routes may have: all of it was delivered."""
        self.of_another_shape = True
        self.deliver(text.decode(errors="replace"))

    @property
    def delivered_tokens(self) -> int:
        """Output tokens that were delivered so far, as counted."""
        estimate = self.request.estimate
        text = self._delivered_text or []
        counted = self.estimates.charged_tokens(estimate.model, self._delivered_bytes, lambda: "".join(text))
        if self.of_another_shape:  # its bytes may be anything: no more than was held
            counted = min(counted, estimate.output_tokens)
        # What could not be read may be compressed: each byte a token, but no more than was held.
        return counted + min(self.unread_bytes, max(0, estimate.output_tokens - counted))

    @property
    def tokens_to_cover(self) -> int:
        """Output tokens that the hold must cover by now: what was reported and has come since, and rather too many.

        Each piece of text is counted once, however often this is asked.
        """
        counted = self._count_to_cover()
        if self.reported is not self._report_to_cover:
            self._report_to_cover, self._counted_at_report = self.reported, counted
        if self.reported is not None:
            counted = max(counted, self.reported.output_tokens + counted - self._counted_at_report)
        return counted + self.unread_bytes

    def _count_to_cover(self) -> int:
        pieces = self._delivered_pieces
        if self._delivered_text is None:
            beyond_ascii = self._delivered_beyond_ascii
            return max(pieces, most_tokens(self._delivered_bytes - beyond_ascii, beyond_ascii))
        model = self.request.estimate.model
        for text in self._delivered_text[self._pieces_to_cover :]:
            size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
            self._counted_to_cover += max(1, self.estimates.charged_tokens(model, size, partial(str, text)))
        self._pieces_to_cover = pieces
        return self._counted_to_cover

    @property
    def knows_usage(self) -> bool:
        """True once the stream has ended, or while nothing was delivered since its last report."""
        return self.done or (self.reported is not None and not self.delivered_since_report)

    def charge(self, *, complete: bool) -> Charge | None:
        """Return the reported usage, or the counted one where no report is usable; None for an error."""
        flags = [] if complete or self.done else ["interrupted"]
        if self.invalid:
            flags.append("usage_invalid")
        if self.unread_bytes:
            flags.append("answer_unread")
        reported = self.reported
        if reported is None:
            if self.failed and not self._delivered_bytes:
                return None
            flags.append("usage_counted")
            reported = self.counted_usage()
        elif self.delivered_since_report and self.delivered_tokens > reported.output_tokens:
            # The report was of an earlier moment, as in a stream that reports with every chunk and was cut.
            flags.append("usage_counted")
            reported = structs.replace(reported, output_tokens=self.delivered_tokens)
        estimate = self.request.estimate
        usage = structs.replace(
            reported, model=estimate.model, operation=estimate.operation, service_tier=self.service_tier
        )
        return Charge(usage, tuple(flags))

    def counted_usage(self) -> UsageMetrics:
        """Return the usage of a response that reports none."""
        return UsageMetrics(input_tokens=self.request.counted_input_tokens, output_tokens=self.delivered_tokens)


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


def decode(text: bytes) -> object:
    """Return the value of a piece of JSON; None where it is not JSON."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(text)  # takes NaN and halves of surrogate pairs, as applications in Python write them
    except (ValueError, RecursionError):
        return None


def texts(value: object, names: Iterable[str]) -> Iterable[str]:
    """Yield the texts in a value of JSON: of objects, only those under `names`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, names)
    elif isinstance(value, dict):
        for name in names:
            if name in value:
                yield from texts(value[name], names)


def written(value: object) -> str:
    """Return a value of JSON as a model writes it, such as the arguments of a tool."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
