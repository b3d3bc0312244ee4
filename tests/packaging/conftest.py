"""The wheel and the sdist, built once from the checkout."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def build(source: Path, target: Path, *options: str) -> Path:
    """Run `python -m build` with the hatchling that is installed, and return the last file that it made."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", target, *options, source],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return max(target.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def wheel_contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of the package in a wheel, by their path."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("ducto_redis/")}


def sdist_names(sdist: Path) -> set[str]:
    """Return the paths in an sdist, without its top folder."""
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if not member.isdir()}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout, as `pip install .` does."""
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "--wheel")


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    return build(ROOT, tmp_path_factory.mktemp("sdist"), "--sdist")
