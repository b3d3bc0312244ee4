"""What a job for a film costs."""

import json
from typing import Any

import httpx
import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.recognisers import OpenAIModerations, OpenAIVideos

JOB = {"id": "video_1", "object": "video", "model": "sora-2", "status": "queued", "progress": 0, "seconds": "8"}


def read(**body: Any) -> UsageMetrics:
    return (
        OpenAIVideos()
        .read_request(ApiRequest(body=json.dumps({"prompt": "otter", **body}).encode()), Estimates())
        .estimate
    )


def answer(document: Any, **body: Any) -> Charge | None:
    videos = OpenAIVideos()
    request = videos.read_request(ApiRequest(body=json.dumps({"model": "m", **body}).encode()), Estimates())
    reader = videos.read_response(request, Estimates())
    reader.document(json.dumps(document).encode())
    return reader.charge(complete=True)


def test_paths() -> None:
    """What makes a film is charged; what asks for one is not."""
    matches = OpenAIVideos().matches
    for path in ("/v1/videos", "/v1/videos/", "/v1/videos/edits", "/v1/videos/extensions", "/v1/videos/video_1/remix"):
        assert matches(path)
    for path in ("/v1/videos/video_1", "/v1/videos/video_1/content", "/v1/videos/characters", "/v1/videosx"):
        assert not matches(path)


def test_the_seconds() -> None:
    """The seconds that are asked for are held, four where none are."""
    assert read() == UsageMetrics(video_seconds=4, operation="video")
    assert read(model="m", seconds="12") == UsageMetrics(model="m", video_seconds=12, operation="video")
    form = httpx.Request(
        "POST", "http://app", data={"model": "m", "seconds": "8"}, files={"input_reference": b"\x89PNG"}
    )
    headers = Headers([(b"content-type", form.headers["content-type"].encode())])
    assert (
        OpenAIVideos().read_request(ApiRequest(headers=headers, body=form.read()), Estimates()).estimate.video_seconds
        == 8
    )
    for body in ({"seconds": "long"}, {"seconds": 0}, {"seconds": 10**6}, {"model": 3}):
        with pytest.raises(BadRequestError):
            read(**body)


def test_the_charge() -> None:
    """The seconds that the answer names are charged, else those that were asked for; a refused job costs nothing."""
    charged = UsageMetrics(model="m", video_seconds=8, operation="video")
    assert answer(JOB, seconds="4") == Charge(charged)
    assert answer({**JOB, "seconds": None}, seconds="8") == Charge(charged, ("usage_counted",))
    assert answer({"error": {"message": "blocked"}}) is None
    assert answer({**JOB, "status": "failed"}) is None
    assert answer([]) == Charge(UsageMetrics(model="m", video_seconds=4, operation="video"), ("usage_counted",))


def test_moderations_are_free() -> None:
    """They are known, and cost nothing."""
    assert OpenAIModerations().matches("/v1/moderations")
    assert OpenAIModerations().free
