"""Models that are named by the path of a request."""

import pytest

from ducto_redis.middleware import BadRequestError, Estimates, Recogniser
from ducto_redis.middleware.api_request import ApiRequest, api_request
from ducto_redis.middleware.recognisers import (
    OpenAIChat,
    OpenAICompletions,
    OpenAIEmbeddings,
    OpenAIImages,
    OpenAISpeech,
    OpenAITranscriptions,
)
from tests.middleware.asgi import scope

PATH = "/openai/deployments/gpt-4o/{}"


@pytest.mark.parametrize(
    "recogniser",
    [
        OpenAIChat(default_model="d"),
        OpenAICompletions(default_model="d"),
        OpenAIEmbeddings(default_model="d"),
        OpenAIImages(default_model="d"),
        OpenAISpeech(default_model="d"),
        OpenAITranscriptions(default_model="d"),
    ],
)
def test_a_deployment_is_a_model(recogniser: Recogniser) -> None:
    """The body names the model, else Azure's path, else the default; a name that none can have is refused."""

    def model(body: bytes, path: str) -> str | None:
        return recogniser.read_request(ApiRequest(path=path, body=body), Estimates()).estimate.model

    assert model(b'{"model": "m", "input": "x"}', PATH.format(recogniser.path_end)) == "m"
    assert model(b'{"input": "x"}', PATH.format(recogniser.path_end)) == "gpt-4o"
    assert model(b'{"input": "x"}', f"/v1{recogniser.path_end}") == "d"
    forwarded = api_request(scope(f"/openai/deployments/cheap/../gpt-4o{recogniser.path_end}")).path
    assert model(b'{"input": "x"}', forwarded) == "gpt-4o"
    with pytest.raises(BadRequestError):
        model(b'{"input": "x"}', f"/openai/deployments/{'x' * 200}{recogniser.path_end}")
