"""Models told by their names."""

from fnmatch import fnmatchcase
from functools import lru_cache


@lru_cache(1024)
def is_one_of(model: str | None, patterns: tuple[str, ...]) -> bool:
    """Tell whether a model follows one of the patterns; a provider named before it does not count.

    >>> [is_one_of(model, ("o1*", "gpt-5*")) for model in ("openai/gpt-5-mini", "openai.gpt-4o", None)]
    [True, False, False]
    """
    if model is None:
        return False
    name = model.rpartition("/")[2].removeprefix("openai.")
    return any(fnmatchcase(name, pattern) for pattern in patterns)
