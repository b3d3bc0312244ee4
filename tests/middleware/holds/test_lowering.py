"""A lowered limit reaches the application, and bounds exactly what is held for it, at every API."""

import json
from pathlib import Path
from typing import Any

import pytest

from ducto_redis.middleware import Estimates, Recogniser
from ducto_redis.middleware.api_request import api_request
from ducto_redis.middleware.holds.clamping import with_limit
from ducto_redis.middleware.recognisers import DEFAULT_RECOGNISERS
from ducto_redis.middleware.routing import Routes

ROUTES = Routes({}, DEFAULT_RECOGNISERS)
ESTIMATES = Estimates(default_max_tokens=2000)


def recorded() -> dict[str, tuple[Recogniser, dict[str, Any], bytes]]:
    """One request for each API and set of fields that the recordings have, with its recogniser and scope."""
    found: dict[str, tuple[Recogniser, dict[str, Any], bytes]] = {}
    for path in sorted((Path(__file__).parents[1] / "recordings").glob("*_200.json")):
        recording = json.loads(path.read_text())
        route, _, query = recording["path"].partition("?")
        scope = {"type": "http", "method": "POST", "path": route, "headers": [], "query_string": query.encode()}
        recogniser = ROUTES.find(api_request(scope))
        assert recogniser is not None
        fields = " ".join(sorted(recording["request"]))
        name = f"{type(recogniser).__name__} {route.rpartition(':')[2]} {fields}"
        found.setdefault(name, (recogniser, scope, json.dumps(recording["request"]).encode()))
    return found


REQUESTS = recorded()


@pytest.mark.parametrize("name", REQUESTS)
def test_a_lowered_request_says_so(name: str) -> None:
    """What is read from the body that the application gets is what was held; other fields stay as they were."""
    recogniser, scope, body = REQUESTS[name]
    request = recogniser.read_request(api_request(scope, body), ESTIMATES)
    asked = ESTIMATES.output(request.output_limit)
    limit = max(1, asked // 3)
    lowered = with_limit(request, limit, ESTIMATES)
    if lowered is None:
        assert request.estimate.output_tokens == 0
        return
    given = recogniser.application_body(body, request, limit)
    read = recogniser.read_request(api_request(scope, given), ESTIMATES)
    assert read.output_limit == lowered.output_limit == limit
    assert read.estimate.output_tokens == lowered.estimate.output_tokens
    assert lowered.estimate.output_tokens == request.estimate.output_tokens - (asked - limit) * request.answers
    before, after = json.loads(body), json.loads(given)
    assert {field for field in before if after.get(field) != before[field]} <= {
        "max_tokens", "max_completion_tokens", "max_output_tokens", "generationConfig", "generation_config",
        "inferenceConfig", "thinking", "stream_options", "options", "additionalModelRequestFields",
    }  # fmt: skip


def test_all_apis_with_output_are_here() -> None:
    """The requests above are of every API with a limit on tokens that was recorded."""
    kinds = {name.split()[0] for name in REQUESTS}
    assert kinds >= {"OpenAIChat", "OpenAIResponses", "AnthropicMessages", "Gemini", "BedrockConverse", "CohereChat"}
