"""What holds that grow are told of a stream: never less than what it would be charged."""

import json
from pathlib import Path

import pytest

from ducto_redis import UsageMetrics
from ducto_redis.middleware import Charge, Estimates, MeteredRequest, ServerSentEvent
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.reading import BodyReading
from ducto_redis.middleware.recognisers import DEFAULT_RECOGNISERS
from ducto_redis.middleware.recognisers.usage_reader import UsageReader
from ducto_redis.middleware.routing import Routes
from ducto_redis.middleware.settings import Holds

FOLDER = Path(__file__).parents[1] / "recordings"
STREAMS = sorted(FOLDER.glob("*_stream_200.json"))


class Reader(UsageReader):
    """Delivers each event's data, and reports what is a number."""

    def document(self, body: bytes) -> None:
        self.deliver(body.decode())

    def event(self, event: ServerSentEvent) -> None:
        if event.data.isdigit():
            self.take_report(UsageMetrics(output_tokens=int(event.data)))
        else:
            self.deliver(event.data.decode())


def reader(estimates: Estimates | None = None) -> Reader:
    request = MeteredRequest(UsageMetrics(model="m", output_tokens=1000))
    return Reader(request, Estimates() if estimates is None else estimates)


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [
        (["a"] * 7, 7),
        (["abcdef"], 2),
        (["abcdefg"], 3),
        (["漢字"], 3),
        (["def f(x): return 漢"], 8),
        (["é"] * 3, 3),
        ([], 0),
    ],
)
def test_counted_by_bytes(pieces: list[str], tokens: int) -> None:
    """A token for three bytes of ASCII and two of anything else, and at least one a piece."""
    delivering = reader()
    for piece in pieces:
        delivering.deliver(piece)
    assert delivering.tokens_to_cover == tokens
    assert delivering.delivered_tokens <= tokens


def test_a_report_raises_it() -> None:
    """What was reported and has come since counts, where that is more; a report of less lowers nothing."""
    reading = reader()
    seen = []
    for data in (b"abc", b"20", b"abc", b"abcabc", b"21", b"abc", b"0", b"abc"):
        reading.event(ServerSentEvent(b"", data))
        seen.append(reading.tokens_to_cover)
    assert seen == [1, 20, 21, 23, 21, 22, 5, 6]


def test_what_can_not_be_read_counts() -> None:
    """Bytes of an unknown encoding may be a token each."""
    reading = reader()
    reading.deliver("abc")
    reading.unread_bytes += 40
    assert reading.tokens_to_cover == 41


def test_a_tokeniser_counts_each_piece_once() -> None:
    """However often it is asked, and a piece is one token at least."""
    texts: list[str] = []

    def count_tokens(model: str | None, text: str) -> int:
        texts.append(text)
        return len(text) - 1

    reading = reader(Estimates(count_tokens=count_tokens))
    for piece in ("abc", "a", "abcd"):
        reading.deliver(piece)
        for _ in range(3):
            covered = reading.tokens_to_cover
    assert covered == 2 + 1 + 3
    assert texts == ["abc", "a", "abcd"]


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_recorded_streams(path: Path) -> None:
    """Before a real stream's last report what is covered is no further from it than a step, at every event."""
    recording = json.loads(path.read_text())
    route, _, query = recording["path"].partition("?")
    scope = {
        "type": "http", "method": "POST", "path": route, "root_path": "", "headers": [],
        "query_string": query.encode(),
    }  # fmt: skip
    recogniser = Routes({}, DEFAULT_RECOGNISERS).find(api_request(scope))
    assert recogniser is not None
    estimates = Estimates()
    request = recogniser.read_request(api_request(scope, json.dumps(recording["request"]).encode()), estimates)
    if request.may_reason_hidden:
        pytest.skip("its worst case is held, for reasoning can't be seen")
    reading = recogniser.read_response(request, estimates)
    body = BodyReading(reading, recording["content_type"].partition(";")[0].encode(), b"", whole_events=True)
    seen = [0]
    for _ in body.feed_each(recording["body"].encode()):
        assert reading.tokens_to_cover >= reading.delivered_tokens
        seen.append(reading.tokens_to_cover)
    charge = reading.charge(complete=True)
    assert isinstance(charge, Charge)
    before_report = max([tokens for tokens in seen if tokens != seen[-1]], default=0)
    assert charge.usage.output_tokens - before_report <= Holds().step_tokens
