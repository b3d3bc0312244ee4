"""Recognisers are listed once, in the folder of their provider."""

import pkgutil
from importlib import import_module

from ducto_redis.middleware import recognisers

FOLDERS = [
    import_module(f"{recognisers.__name__}.{module.name}")
    for module in pkgutil.iter_modules(recognisers.__path__)
    if module.ispkg
]


def test_every_provider_is_gathered() -> None:
    """What a provider's folder exports, and what it recognises by default, is there, once."""
    assert len(FOLDERS) >= 6
    for folder in FOLDERS:
        assert set(folder.__all__) <= set(recognisers.__all__)
        assert set(folder.DEFAULT_RECOGNISERS) <= set(recognisers.DEFAULT_RECOGNISERS)
        assert {type(each).__name__ for each in folder.DEFAULT_RECOGNISERS} <= set(folder.__all__)
    for names in (recognisers.__all__, [type(each) for each in recognisers.DEFAULT_RECOGNISERS]):
        assert len(names) == len(set(names))
    assert all(hasattr(recognisers, name) for name in recognisers.__all__)
