"""Routing of a request to its API, by method and path."""

import logging
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from starlette.routing import compile_path

from ducto_redis.errors import ConfigError
from ducto_redis.middleware.api_request import ApiRequest
from ducto_redis.middleware.counts import MeteringCounts
from ducto_redis.middleware.error_responses import Refusal
from ducto_redis.middleware.recognisers import Recogniser

logger = logging.getLogger("ducto_redis.middleware")

METERED = "ducto_redis.metered"
"""What the scope of a request has that is metered, so that no inner instance meters it again."""

# What reads, announces or takes away costs nothing at any of these APIs.
_FREE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
_REMEMBERED = 1024
_LONGEST_REMEMBERED = 512
_MOST_COUNTED = 1000
# Words of paths are short and have no digits but in versions; what else stands in a path is an id.
_WORD = re.compile(r"(?:v\d+\w{0,7}|[A-Za-z][A-Za-z_.:-]{0,31})")


class Routes:
    """Finds the recogniser of a request: `routes` first, then the first of `recognisers` that matches the path.

    Args:
        routes: paths of the application's own.
        recognisers: APIs that are recognised by their paths.

    Raises:
        ConfigError: where one of them is no recogniser, or no path.
    """

    def __init__(self, routes: Mapping[str, Recogniser], recognisers: Sequence[Recogniser]) -> None:
        self.recognisers = (*routes.values(), *recognisers)
        for recogniser in self.recognisers:
            if not isinstance(recogniser, Recogniser):
                raise ConfigError(f"routes and recognisers take objects such as OpenAIChat(), not {recogniser!r}")
        self._routes = [(_path_pattern(path), recogniser) for path, recogniser in routes.items()]
        self._recognisers = tuple(recognisers)
        # An application has few paths, and asking twenty recognisers takes longer than to remember the answer.
        self._remembered = lru_cache(_REMEMBERED)(self._find)

    def find(self, request: ApiRequest) -> Recogniser | None:
        """Return the recogniser of a request, or None."""
        find = self._remembered if len(request.path) <= _LONGEST_REMEMBERED else self._find
        return find(request.method, request.path, request.root_path)

    def nearest(self, request: ApiRequest) -> Recogniser | None:
        """Return the API that a request which is not recognised most likely means, for the shape of its refusal."""
        parts = request.sent_path.split("/")
        for recogniser in self.recognisers:
            if recogniser.path_end.rpartition("/")[2] in parts and recogniser.path_end:
                return recogniser
        return None

    def _find(self, method: str, path: str, root: str) -> Recogniser | None:
        path = path.rstrip("/") or "/"
        inside = _inside(path, root)
        for pattern, recogniser in self._routes:
            if method in recogniser.methods and (pattern.match(path) or pattern.match(inside)):
                return recogniser
        for recogniser in self._recognisers:
            if method in recogniser.methods and recogniser.matches(path):
                return recogniser
        return None


class MeteredPrefixes:
    """Paths under which nothing is to be free only because nobody knows it.

    Args:
        prefixes: paths such as "/v1".
        counts: where requests that are unknown are counted.
    """

    def __init__(self, prefixes: Sequence[str], counts: MeteringCounts) -> None:
        self._prefixes = tuple(prefix.rstrip("/") for prefix in prefixes)
        self._counts = counts

    def __contains__(self, request: ApiRequest) -> bool:
        """Tell whether a request that no recogniser knows may cost something here."""
        if not self._prefixes or request.method in _FREE_METHODS:
            return False
        paths = {request.path, _inside(request.path, request.root_path)}
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self._prefixes for path in paths)

    def count(self, request: ApiRequest, became: str) -> None:
        """Count a request that no recogniser knows, and log the first of its path."""
        counted = self._counts.unknown_routes
        route = f"{request.method[:20]} {without_ids(request.sent_path)}"
        if route not in counted:
            if len(counted) >= _MOST_COUNTED:
                route = "*"
            logger.warning("no recogniser knows %s, which is %s", route, became)
        counted[route] = counted.get(route, 0) + 1


def unknown_route(request: ApiRequest) -> Refusal:
    """Return the answer to a request under a metered prefix that no recogniser knows."""
    message = f"{request.method} {request.sent_path} is no route that credits can pay for"
    return Refusal(404, "route_not_metered", message)


def _inside(path: str, root: str) -> str:
    """Return a path as the application sees it that is mounted at `root`."""
    root = root.rstrip("/")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _path_pattern(path: str) -> re.Pattern[str]:
    if not path.startswith("/"):
        raise ConfigError(f"a path in routes starts with a slash, unlike {path!r}")
    return compile_path(path.rstrip("/") or "/")[0]


def without_ids(path: str) -> str:
    """Return a path with `*` for what stands in it and is an id."""
    return "/".join(part if not part or _WORD.fullmatch(part) else "*" for part in path[:200].split("/"))
