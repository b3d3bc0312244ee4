"""Notes on what each peer leaves out: a speed without them says little."""

from collections.abc import Iterator


def notes() -> Iterator[str]:
    """Return a line for each peer."""
    from benchmarks.peers import all_peers  # they need what only `make bench-peers` installs

    by_lack: dict[str, list[str]] = {}
    for peer in all_peers():
        by_lack.setdefault(peer.lacks, []).append(peer.name)
    for lack, names in by_lack.items():
        yield f"- {'; '.join(names)}: does not have {lack}."
