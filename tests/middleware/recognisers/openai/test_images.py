"""What a request for pictures may cost, and what its answer says it used."""

import json
from typing import Any

import httpx
import pytest

from ducto_redis.metrics import UsageMetrics
from ducto_redis.middleware import BadRequestError, Charge, Estimates, MeteredRequest, ServerSentEvent
from ducto_redis.middleware.api_request import ApiRequest, Headers
from ducto_redis.middleware.recognisers import OpenAIImages

IMAGES = OpenAIImages(output_tokens=1000, input_tokens=100)
REPORT = {
    "input_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    "output_tokens": 900,
    "total_tokens": 950,
}
PICTURE = {"b64_json": "QUJD" * 50}


def read(**body: Any) -> MeteredRequest:
    return IMAGES.read_request(ApiRequest(body=json.dumps({"model": "m", **body}).encode()), Estimates())


def read_form(fields: dict[str, str], files: list[tuple[str, bytes]]) -> MeteredRequest:
    parts = [(name, (f"{name}.png", content)) for name, content in files]
    request = httpx.Request("POST", "http://app", data=fields, files=parts)
    headers = Headers([(b"content-type", request.headers["content-type"].encode())])
    return IMAGES.read_request(ApiRequest(headers=headers, body=request.read()), Estimates())


def answer(document: Any, *, complete: bool = True, **body: Any) -> Charge | None:
    reader = IMAGES.read_response(read(prompt="otter", **body), Estimates())
    reader.document(document if isinstance(document, bytes) else json.dumps(document).encode())
    return reader.charge(complete=complete)


def stream(*events: dict[str, Any], complete: bool = True, **body: Any) -> Charge | None:
    reader = IMAGES.read_response(read(prompt="otter", stream=True, **body), Estimates())
    for event in events:
        reader.event(ServerSentEvent(event.get("type", "").encode(), json.dumps(event).encode()))
    return reader.charge(complete=complete)


def used(**more: Any) -> UsageMetrics:
    return UsageMetrics(
        **{"model": "m", "input_tokens": 50, "image_input_tokens": 40, "output_tokens": 900, "images": 1}
        | {"image_output_tokens": 900, "operation": "image"}
        | more
    )


def test_paths() -> None:
    """Three paths make pictures."""
    for path in ("/v1/images/generations", "/v1/images/edits", "/v1/images/variations", "/images/edits/"):
        assert IMAGES.matches(path)
    assert not IMAGES.matches("/v1/images")
    assert not IMAGES.matches("/v1/responses")


def test_the_worst_case() -> None:
    """As many pictures as are asked for, each the most that one takes; the prompt; and the pictures that are given."""
    prompt = len(b'"otter"')
    assert read(prompt="otter").estimate == UsageMetrics(
        model="m",
        input_tokens=prompt,
        output_tokens=1000,
        image_output_tokens=1000,
        images=1,
        operation="image",
    )
    several = read(prompt="otter", n=3, images=[{"file_id": "f1"}, {"image_url": "x"}], mask={"file_id": "f2"})
    assert several.estimate.output_tokens == several.estimate.image_output_tokens == 3000
    assert several.estimate.input_tokens == prompt + 300
    assert several.estimate.image_input_tokens == 300
    assert several.estimate.images == 3
    assert several.answers == 0
    assert several.holds_worst_case


def test_forms() -> None:
    """A form says the same as JSON, and its files are pictures, whatever they weigh."""
    request = read_form(
        {"model": "m", "prompt": "otter", "n": "2", "stream": "true"},
        [("image[]", b"\x89PNG" * 5000), ("image[]", b"\x89PNG"), ("mask", b"\x89PNG")],
    )
    assert request.estimate == UsageMetrics(
        model="m",
        input_tokens=7 + 300,
        image_input_tokens=300,
        output_tokens=2000,
        image_output_tokens=2000,
        images=2,
        operation="image",
    )
    assert request.streams
    assert not read_form({"prompt": "otter"}, [("image", b"")]).streams


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": "many"}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": 101}, "n"),
        ({"n": True}, "n"),
        ({"model": 3}, "model"),
        ({"model": "x" * 200}, "model"),
    ],
)
def test_bad_requests(body: dict[str, Any], param: str) -> None:
    """Numbers and models that are none are refused."""
    with pytest.raises(BadRequestError) as refused:
        read(**body)
    assert refused.value.param == param


def test_the_report_is_charged() -> None:
    """Totals, with the pictures in them as parts, and the number of pictures."""
    assert answer({"created": 1, "data": [PICTURE], "usage": REPORT}) == Charge(used())
    detailed = {**REPORT, "output_tokens_details": {"image_tokens": 800, "text_tokens": 100}}
    assert answer({"data": [PICTURE, PICTURE], "usage": detailed}, n=2) == Charge(
        used(images=2, image_output_tokens=800)
    )
    zero = {"input_tokens": 0, "output_tokens": 0}
    assert answer({"data": [PICTURE], "usage": zero}) == Charge(UsageMetrics(model="m", images=1, operation="image"))


def test_drawings_report_the_model_that_writes_them_too() -> None:
    """An answer with SVG has two reports, which are added."""
    writer = {"model": "w", "input_tokens": 500, "output_tokens": 300, "reasoning_tokens": 200, "total_tokens": 800}
    assert answer({"data": [PICTURE], "usage": REPORT, "svg_usage": writer}) == Charge(
        used(input_tokens=550, output_tokens=1200)
    )


def test_a_stream() -> None:
    """What is seen of a picture before it is ready costs nothing of its own; each picture reports for itself."""
    partial = {"type": "image_generation.partial_image", "partial_image_index": 0, **PICTURE}
    completed = {"type": "image_generation.completed", "usage": REPORT, **PICTURE}
    assert stream(partial, partial, completed) == Charge(used())
    assert stream(partial, completed, complete=False) == Charge(used())
    assert stream({**completed, "type": "image_edit.completed"}) == Charge(used())
    assert stream(completed, completed, n=2) == Charge(
        used(input_tokens=100, image_input_tokens=80, output_tokens=1800, image_output_tokens=1800, images=2)
    )


def test_without_a_report_pictures_are_counted() -> None:
    """As many as came, else as were asked for, each a quarter of the most that one takes."""
    counted = UsageMetrics(
        model="m", input_tokens=2, output_tokens=250, image_output_tokens=250, images=1, operation="image"
    )
    assert answer({"data": [PICTURE]}) == Charge(counted, ("usage_counted",))
    assert answer({"data": [PICTURE], "usage": "lots"}) == Charge(counted, ("usage_invalid", "usage_counted"))
    cut = answer(b'{"data": [{"b64_json": "QUJ', complete=False)
    assert cut == Charge(counted, ("interrupted", "usage_counted"))
    three = answer({"data": [PICTURE] * 3}, n=4)
    assert three is not None
    assert (three.usage.images, three.usage.output_tokens) == (3, 750)
    partial = {"type": "image_generation.partial_image", **PICTURE}
    assert stream(partial, complete=False) == Charge(counted, ("interrupted", "usage_counted"))


def test_an_error_costs_nothing() -> None:
    """An error in place of pictures is not charged; after one it is."""
    error = {"error": {"message": "moderation_blocked"}}
    assert answer(error) is None
    assert stream(error) is None
    completed = {"type": "image_generation.completed", "usage": REPORT, **PICTURE}
    assert stream(completed, error, n=2) == Charge(used())
    silent = stream({**completed, "usage": None}, error, n=2)
    assert silent is not None
    assert (silent.usage.images, silent.flags) == (1, ("usage_counted",))
