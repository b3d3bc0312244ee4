"""The tokens that a request may use, and those to charge where the response reports none."""

import logging
from collections.abc import Callable
from typing import TypeAlias

from ducto_redis.errors import ConfigError
from ducto_redis.metrics import MAX_COUNT

logger = logging.getLogger("ducto_redis.middleware")

CountTokens: TypeAlias = Callable[[str | None, str], int]
"""`count_tokens(model, text)` returns the tokens of a text, as the model's own tokeniser counts them."""

BYTES_PER_TOKEN = 4
# Code and numbers in ASCII, and most other scripts, take no fewer bytes a token than this.
_FEWEST_BYTES_PER_TOKEN = 3
_FEWEST_BYTES_PER_TOKEN_BEYOND_ASCII = 2


def most_tokens(ascii_bytes: int, other_bytes: int) -> int:
    """Return the most tokens that text of a model's response is expected to have been, by its size in bytes."""
    return -(-ascii_bytes // _FEWEST_BYTES_PER_TOKEN) - (-other_bytes // _FEWEST_BYTES_PER_TOKEN_BEYOND_ASCII)


class Estimates:
    """Upper bounds for holds, and token counts for charges without a reported usage.

    Args:
        default_max_tokens: output tokens to hold for a request that sets no limit.
        max_tokens_ceiling: output tokens that no model behind the application exceeds; a request that asks for more
            holds only this. None: what is asked for is held.
        count_tokens: a tokeniser. Without one, a hold assumes a token per UTF-8 byte, which is an upper bound, and a
            charge a token per four bytes.
    """

    def __init__(
        self,
        default_max_tokens: int = 4096,
        max_tokens_ceiling: int | None = None,
        count_tokens: CountTokens | None = None,
    ) -> None:
        for name, value in (("default_max_tokens", default_max_tokens), ("max_tokens_ceiling", max_tokens_ceiling)):
            if value is not None and not (type(value) is int and 1 <= value <= MAX_COUNT):
                raise ConfigError(f"{name} must be a number of tokens, 1 or more, not {value!r}")
        self.default_max_tokens = default_max_tokens
        self.max_tokens_ceiling = max_tokens_ceiling
        self.count_tokens = count_tokens

    def output(self, asked: int | None) -> int:
        """Return the most output tokens that one response may have, where the request set the limit `asked`."""
        most = self.default_max_tokens if asked is None else asked
        return most if self.max_tokens_ceiling is None else min(most, self.max_tokens_ceiling)

    def held_tokens(self, model: str | None, size: int, text: Callable[[], str]) -> int:
        """Return the tokens to hold for a text of `size` bytes; `text()` is only called for the tokeniser."""
        counted = self._tokenise(model, text)
        return size if counted is None else counted

    def charged_tokens(self, model: str | None, size: int, text: Callable[[], str]) -> int:
        """Return the tokens to charge for a text of `size` bytes where the response reports none."""
        counted = self._tokenise(model, text)
        return -(-size // BYTES_PER_TOKEN) if counted is None else counted

    def _tokenise(self, model: str | None, text: Callable[[], str]) -> int | None:
        if self.count_tokens is None:
            return None
        try:
            counted = self.count_tokens(model, text())
        except Exception:
            # A tokeniser that fails must neither refuse a customer nor lose a charge: bytes are counted instead.
            logger.exception("count_tokens failed for model %r; bytes are counted instead", model)
            return None
        if type(counted) is not int or not 0 <= counted <= MAX_COUNT:
            logger.error("count_tokens returned %.60r for model %r; bytes are counted instead", counted, model)
            return None
        return counted
