"""The build hook: puts the folders `lua` and `middleware` into the package.

In a checkout, `ducto_redis/lua` and `ducto_redis/middleware` are symlinks to them. Where those were not restored (a zip
of the repository, Windows), they are small text files or missing: a wheel is whole all the same, and an editable
install, which cannot do without them, is an error instead of a broken package.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("lua", "middleware")


class TopFolders(BuildHookInterface):
    """Adds the folders to a wheel, and checks them for an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        for name in FOLDERS:
            in_package = Path(self.root, "ducto_redis", name)
            if version != "editable":
                build_data["force_include"][str(Path(self.root, name))] = f"ducto_redis/{name}"
            elif not in_package.is_dir():
                raise RuntimeError(
                    f"{in_package} is not the symlink to ../{name} that it should be: clone the repository with git "
                    "(core.symlinks=true), or install it without -e"
                )
