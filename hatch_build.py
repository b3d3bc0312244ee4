"""The build hook: puts the folders `lua` and `middleware` into the package.

In a checkout, `ducto_redis/lua` and `ducto_redis/middleware` are symlinks to them. In a zip of the repository they are
small text files or missing. A wheel is whole all the same; an editable install restores the symlinks first.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("lua", "middleware")


class TopFolders(BuildHookInterface):
    """Adds the folders to a wheel, and restores their symlinks for an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        for name in FOLDERS:
            if version != "editable":
                build_data["force_include"][str(Path(self.root, name))] = f"ducto_redis/{name}"
            else:
                restore(Path(self.root, "ducto_redis", name), Path("..", name))


def restore(link: Path, target: Path) -> None:
    """Make `link` the symlink to `target` that it was in the repository.

    Raises:
        RuntimeError: if symlinks cannot be made here, or something else is in the way.
    """
    if link.is_dir():
        return
    try:
        if link.is_file() and link.read_text().strip() == target.as_posix():
            link.unlink()
        link.symlink_to(target, target_is_directory=True)
    except OSError as error:
        raise RuntimeError(
            f"{link} is not the symlink to {target.as_posix()} that it should be, and cannot be made it ({error}): "
            "clone the repository with git (core.symlinks=true), or install it without -e"
        ) from error
