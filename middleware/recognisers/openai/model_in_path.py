"""Models that a path names, as Azure's do."""

import re

from ducto_redis.middleware.error_responses import BadRequestError
from ducto_redis.middleware.recognisers.json_request import check_name

_DEPLOYMENT = re.compile(r"/(?:deployments|engines)/([^/]+)/")


def model_of(named: object, path: str, default: str | None) -> str | None:
    """Return the model of a request: the one its body names, else its path, else the default.

    Raises:
        BadRequestError: where that is no name that a model can have.

    >>> model_of(None, "/openai/deployments/gpt-4o/chat/completions", None)
    'gpt-4o'
    """
    if named is None:
        found = _DEPLOYMENT.search(path)
        named = default if found is None else found[1]
    if named is not None and not isinstance(named, str):
        raise BadRequestError("model must be a string", param="model")
    check_name(named, "model")
    return named
