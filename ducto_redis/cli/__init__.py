"""The command line: `ducto`.

- `application`: the commands, and how a failure is told.
- `environment`: what the environment variables name; `output`: tables for people, JSON for programs.
- `accounts`, `leases`, `pricing`, `ledger`, `worker`, `doctor`, `demo`: the commands.
"""

import sys

_OWN_PACKAGES = ("typer", "rich")


def main() -> None:
    """Run `ducto`. Without the packages that the command line needs, say how to install them."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in _OWN_PACKAGES:
            raise
        sys.exit("ducto: the command line needs a few packages more: pip install 'ducto-redis[cli]'")
    from ducto_redis.cli.application import app

    app(prog_name="ducto")
