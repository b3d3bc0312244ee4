"""Outlives the test run by a moment: kills the servers and removes the folders that a killed run left behind.

`servers.py` starts this script as a process of its own and writes one JSON object per line to its standard input:

    {"add_process": 4711, "signal": 9}    a server to kill, and with which signal
    {"remove_process": 4711}              it has been stopped
    {"add_folder": "/tmp/..."}            a folder to remove
    {"remove_folder": "/tmp/..."}         it has been removed

The run is over when its end of the pipe closes, or when this process gets another parent (a forked child of the run
may still hold the pipe).
"""

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time

PARENT_CHECK_SECONDS = 0.5
SHUTDOWN_SECONDS = 5


def main() -> None:
    parent = int(sys.argv[1])
    processes: dict[int, int] = {}
    folders: list[str] = []
    pending = b""
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], PARENT_CHECK_SECONDS)
        if not readable:
            continue
        received = os.read(sys.stdin.fileno(), 65536)
        if not received:
            break
        *lines, pending = (pending + received).split(b"\n")
        for line in lines:
            note(json.loads(line), processes, folders)
    kill(processes)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def note(message: dict, processes: dict[int, int], folders: list[str]) -> None:
    if "add_process" in message:
        processes[message["add_process"]] = message["signal"]
    if "remove_process" in message:
        processes.pop(message["remove_process"], None)
    if "add_folder" in message:
        folders.append(message["add_folder"])
    if "remove_folder" in message:
        folders.remove(message["remove_folder"])


def kill(processes: dict[int, int]) -> None:
    """Sends each process its signal, and SIGKILL to those that are still there after a while."""
    send(processes)
    give_up = time.monotonic() + SHUTDOWN_SECONDS
    while any(is_alive(process) for process in processes) and time.monotonic() < give_up:
        time.sleep(0.05)
    send(dict.fromkeys(processes, signal.SIGKILL))


def send(processes: dict[int, int]) -> None:
    for process, number in processes.items():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
