"""Command lines of ``lab`` in processes of their own, without the seconds that importing torch takes each time.

``python -m tests.fork_server`` imports everything once and forks a child for each command line that it is sent, which
runs it as ``python -m lab`` would. Nothing is computed before the fork, so a child is as fresh as any other process.
It can be killed at any moment, also before the n-th change that it makes in a folder.

Requests and answers are lines of JSON: ``{"argv", "root", "log", "watch", "kill_at", "marks"}`` is answered by the
process id, ``{"wait": pid}`` by the exit code (negative: the signal that ended it).
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

from hrm_engine.config import kinds


def serve() -> None:
    """Answer requests until the input ends."""
    tasks = [kind.task.partition(":")[0] for kind in kinds.table().values()]
    # torch imports the last one when the first optimizer is made, which would take each child a second
    for module in (*tasks, "lab.cli.train", "lab.cli.train_view", "torch._dynamo"):
        import_module(module)
    gc.collect()
    gc.freeze()  # what the collector of a child does not look at stays shared, and is not copied
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                _child(request)
        print(json.dumps(answer), flush=True)


def _child(request: dict[str, Any]) -> None:
    from lab.cli.app import main

    code = 1
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number in (1, 2):
            os.dup2(log, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["HRM_LAB_ROOT"] = request["root"]
        os.chdir(request["root"])
        sys.argv = ["lab", *request["argv"]]
        if request["watch"] is not None:
            _watch(request["watch"], request["kill_at"], request["marks"])
        code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _watch(folder: str, kill_at: int | None, marks: str) -> None:
    """Write every change in ``folder`` to the file ``marks`` before it is made; kill instead of making the n-th.

    Changes are new files, renames, and the removals that make up the removal of a folder. The status file, which is
    written at times of its own, is left out.
    """
    count = 0
    output = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event == "os.rename":
            path = str(args[1])
        elif event == "open" and isinstance(args[1], str) and "x" in args[1]:
            path = str(args[0])
        elif event == "os.remove" and args[1] != -1:  # within shutil.rmtree, relative to an open folder
            path = f"{folder}/{args[0]}"
        elif event == "os.rmdir":
            path = str(args[0])
        else:
            return
        if not path.startswith(folder) or path.endswith(("status.json", ".lock.json", "-probe")):
            return
        count += 1
        os.write(output, f"{event} {path.removeprefix(folder)}\n".encode())
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    serve()
