"""The files in requirements/ say what pyproject.toml says."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.conftest import ROOT

PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[Any]] = PYPROJECT["dependency-groups"]
LOCKED = (ROOT / "requirements" / "locked.txt").read_text()
OLDEST = (ROOT / "requirements" / "oldest.txt").read_text()


def requirements(texts: list[Any]) -> Iterator[Requirement]:
    """Yield the requirements on other projects in a list of pyproject.toml, included groups too."""
    for text in texts:
        if isinstance(text, dict):
            yield from requirements(GROUPS[text["include-group"]])
        elif (requirement := Requirement(text)).name != "ducto-redis":
            yield requirement


def pins(text: str) -> set[tuple[str, str]]:
    """Return the names and versions of a requirements file. A name may have several, for different systems."""
    return {(canonicalize_name(name), version) for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M)}


def users_requirements() -> list[Requirement]:
    """Return what an application installs: dependencies and extras."""
    project = PYPROJECT["project"]
    extras = [texts for extra, texts in project["optional-dependencies"].items() if extra != "conformance"]
    return [*requirements(project["dependencies"]), *(one for texts in extras for one in requirements(texts))]


def test_locked_versions_satisfy_pyproject() -> None:
    """Every dependency of the package, its extras and its development is locked at a version that is admitted."""
    for requirement in [*users_requirements(), *requirements(GROUPS["dev"]), *requirements(GROUPS["bench"])]:
        locked = [version for name, version in pins(LOCKED) if name == canonicalize_name(requirement.name)]
        assert locked, requirement
        assert all(requirement.specifier.contains(version) for version in locked), requirement


def test_lock_has_hashes_and_no_place() -> None:
    """Every locked version has its hashes; the file names no index and no path."""
    entries = re.split(r"\n(?=\w)", LOCKED.strip())
    assert len(entries) == len(pins(LOCKED))
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in LOCKED
    assert "file:" not in LOCKED


def test_oldest_versions_are_the_lower_bounds() -> None:
    """What `make test-oldest` installs is the lower bound of every dependency and extra."""
    bounds = {
        (canonicalize_name(requirement.name), bound.version)
        for requirement in users_requirements()
        for bound in requirement.specifier
        if bound.operator == ">="
    }
    assert pins(OLDEST) == bounds
