"""A wheel, however it is built, holds the whole package: the folders at the top as well."""

import configparser
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, build, sdist_names, wheel_contents

PACKAGE = ROOT / "ducto_redis"
LINKED_FOLDERS = ("lua", "middleware")


def files_below(folder: Path) -> dict[str, bytes]:
    """Return the files that belong to the package, by their path; symlinks are followed."""
    return {
        str(Path(parent, name).relative_to(folder)): Path(parent, name).read_bytes()
        for parent, folders, names in os.walk(folder, followlinks=True)
        for name in names
        if "__pycache__" not in parent
    }


@pytest.mark.parametrize("name", LINKED_FOLDERS)
def test_package_folder_is_the_top_folder(name: str) -> None:
    """`lua` and `middleware` in the package are links to the folders at the top, never copies."""
    assert (PACKAGE / name).readlink() == Path("..", name)
    assert files_below(PACKAGE / name) == files_below(ROOT / name)


def test_wheel_is_the_package(wheel: Path) -> None:
    """A wheel holds every file of the package, the linked ones as real files, and no other."""
    assert wheel_contents(wheel) == {f"ducto_redis/{path}": text for path, text in files_below(PACKAGE).items()}
    assert {"ducto_redis/py.typed", "ducto_redis/lua/lib/now.lua", "ducto_redis/middleware/__init__.py"} <= set(
        wheel_contents(wheel)
    )


def test_wheel_has_the_pytest_plugin(wheel: Path) -> None:
    """pytest finds the conformance suite's option by itself where the wheel is installed."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        points = configparser.ConfigParser()
        points.optionxform = str  # type: ignore[assignment,method-assign]
        points.read_string(archive.read(name).decode())
    plugin = "ducto_redis.testing.plugin"
    assert dict(points["pytest11"]) == {plugin: plugin}
    assert f"{plugin.replace('.', '/')}.py" in wheel_contents(wheel)


def test_sdist_holds_the_top_folders(sdist: Path) -> None:
    """An sdist holds all that the tests and the build need."""
    names = sdist_names(sdist)
    for folder in ("ducto_redis", "lua", "middleware", "tests"):
        below = {f"{folder}/{path}" for path in files_below(ROOT / folder)}
        assert below <= names
    assert {"pyproject.toml", "hatch_build.py", "README.md", "Makefile"} <= names


def test_wheel_from_sdist(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    """The wheel that is built from the sdist is the one that is built from the checkout."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    assert wheel_contents(build(source, tmp_path / "wheel", "--wheel")) == wheel_contents(wheel)


@pytest.fixture(params=["text file", "missing"])
def checkout_without_symlinks(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkout as a zip of the repository, or a Windows machine, gives it."""
    checkout = tmp_path / "checkout"
    for folder in ("lua", "middleware"):
        shutil.copytree(ROOT / folder, checkout / folder)
    shutil.copytree(PACKAGE, checkout / "ducto_redis", symlinks=True)
    for file in ("pyproject.toml", "hatch_build.py", "README.md"):
        shutil.copy(ROOT / file, checkout)
    for name in LINKED_FOLDERS:
        (checkout / "ducto_redis" / name).unlink()
        if request.param == "text file":
            (checkout / "ducto_redis" / name).write_text(f"../{name}")
    return checkout


def test_wheel_without_symlinks(checkout_without_symlinks: Path, wheel: Path, tmp_path: Path) -> None:
    """A checkout that lost its symlinks gives the same wheel."""
    built = build(checkout_without_symlinks, tmp_path / "wheel", "--wheel")
    assert wheel_contents(built) == wheel_contents(wheel)


def build_editable(checkout: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    """Build what `pip install -e` installs, with the hatchling that is installed."""
    return subprocess.run(
        [sys.executable, "-c", "import sys, hatchling.build; hatchling.build.build_editable(sys.argv[1])", target],
        cwd=checkout,
        capture_output=True,
        text=True,
    )


def test_editable_install_without_symlinks(checkout_without_symlinks: Path, tmp_path: Path) -> None:
    """An editable install of a checkout that lost its symlinks restores them."""
    done = build_editable(checkout_without_symlinks, tmp_path)
    assert done.returncode == 0, done.stderr
    for name in LINKED_FOLDERS:
        assert (checkout_without_symlinks / "ducto_redis" / name).readlink() == Path("..", name)
    assert files_below(checkout_without_symlinks / "ducto_redis") == files_below(PACKAGE)


def test_editable_install_keeps_what_is_in_the_way(checkout_without_symlinks: Path, tmp_path: Path) -> None:
    """An editable install overwrites no other file in the place of a symlink, and says what is wrong."""
    (checkout_without_symlinks / "ducto_redis" / "lua").write_text("mine")
    done = build_editable(checkout_without_symlinks, tmp_path)
    assert done.returncode != 0
    assert "clone the repository with git" in done.stderr
    assert (checkout_without_symlinks / "ducto_redis" / "lua").read_text() == "mine"


def test_bare_import_of_middleware_is_an_error() -> None:
    """Beside the checkout, `import middleware` says which name to import, instead of loading everything twice."""
    done = subprocess.run([sys.executable, "-c", "import middleware"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "ImportError" in done.stderr
    assert "ducto_redis.middleware" in done.stderr.strip().splitlines()[-1]
