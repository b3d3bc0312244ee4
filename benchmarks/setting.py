"""The setting of this folder's families, besides a Redis server: a database, and a folder for files."""

from pathlib import Path

from benchmarks.servers import DurablePostgres
from ducto_redis.benchmark import setting


class Setting(setting.Setting, frozen=True):
    """The setting that a run gives to the families.

    Attributes:
        postgres: PostgreSQL, where it is installed.
        folder: where files may be written; it is gone after the run.
    """

    postgres: DurablePostgres | None
    folder: Path
