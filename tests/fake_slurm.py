"""A SLURM of one machine, for tests: `install` puts sbatch, srun, squeue, sacct and scontrol into a folder.

It keeps a queue in that folder, starts each element of an array at once unless `hold` lies there, sets the variables
that losslab and submitit read, and starts a requeued job again.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scontrol")
HOLD = "hold"
"""While this file is there, jobs wait in the queue."""
FIRST = 100


def install(folder: Path) -> None:
    folder.mkdir()
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} "$@"\n')
        script.chmod(0o755)


def jobs(folder: Path) -> dict[str, str]:
    """The state of every job that was ever submitted."""
    return {path.stem: json.loads(path.read_text())["state"] for path in sorted(folder.glob("*.job"))}


def send(folder: Path, job: str, number: signal.Signals) -> None:
    """Send a signal to every task of the job, as scancel --signal does."""
    for pid in json.loads((folder / f"{job}.job").read_text())["tasks"]:
        os.kill(pid, number)


def _change(folder: Path, job: str, **values: object) -> None:
    path = folder / f"{job}.job"
    content = (json.loads(path.read_text()) if path.exists() else {}) | values
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.rename(path)


def sbatch(folder: Path, script: Path) -> None:
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script.read_text(), re.MULTILINE))
    number = FIRST + len({path.stem.partition("_")[0] for path in folder.glob("*.job")})
    found = re.match(r"'?0-(\d+)", options.get("array", ""))
    elements = [f"{number}_{i}" for i in range(int(found[1]) + 1)] if found else [str(number)]
    (folder / f"{number}.json").write_text(json.dumps(options))
    for element in elements:
        _change(folder, element, state="PENDING", tasks=[])
        command = [sys.executable, __file__, "work", element, str(script.absolute()), json.dumps(options)]
        subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"Submitted batch job {number}")


def work(folder: Path, job: str, script: str, options: str) -> None:
    """One job, from its start to its end, and again where it was requeued."""
    given = json.loads(options)
    while True:
        while (folder / HOLD).exists():
            time.sleep(0.1)
        _change(folder, job, state="RUNNING", tasks=[], requeue=False)
        array, _, element = job.partition("_")
        environment = os.environ | {
            "FAKE_JOB": job,
            "SLURM_JOB_ID": array,
            "FAKE_NODES": given["nodes"],
            "FAKE_TASKS_PER_NODE": given["ntasks-per-node"],
            "SLURM_PROCID": "0",
        }
        if element:
            environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": element}
        if "cpus-per-task" in given:
            environment["SLURM_CPUS_PER_TASK"] = given["cpus-per-task"]
        code = subprocess.run(["bash", script], env=environment).returncode
        if not json.loads((folder / f"{job}.job").read_text())["requeue"]:
            _change(folder, job, state="COMPLETED" if code == 0 else "FAILED", tasks=[])
            return
        _change(folder, job, state="PENDING", tasks=[])


def task(number: int, *, nodes: int, per_node: int) -> dict[str, str]:
    """The variables that srun sets for one of its tasks."""
    return {
        "SLURM_JOB_ID": os.environ.get("SLURM_JOB_ID", str(FIRST)),
        "SLURM_STEP_ID": str(os.getpid()),  # of the process that starts them: their port is made of it
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number % per_node),
        "SLURM_NODEID": str(number // per_node),
        "SLURM_STEP_NUM_TASKS": str(nodes * per_node),
        "SLURM_STEP_TASKS_PER_NODE": f"{per_node}(x{nodes})" if nodes > 1 else str(per_node),
        "SLURM_STEP_NODELIST": "localhost",
    }


def srun(folder: Path, *arguments: str) -> None:
    """As many tasks as the job has, all on this machine, and told to be on as many nodes as it asked for."""
    job, nodes, per_node = os.environ["FAKE_JOB"], int(os.environ["FAKE_NODES"]), int(os.environ["FAKE_TASKS_PER_NODE"])
    rest = list(arguments)
    names = {}
    while rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            names[option] = rest.pop(0)
    started = []
    for i in range(nodes * per_node):
        environment = os.environ | task(i, nodes=nodes, per_node=per_node)
        with _log(names["--output"], job, i) as out, _log(names["--error"], job, i) as errors:
            started.append(subprocess.Popen(rest, env=environment, stdout=out, stderr=errors))
    _change(folder, job, tasks=[process.pid for process in started])
    sys.exit(max(process.wait() for process in started))


def _log(pattern: str, job: str, number: int) -> IO[bytes]:
    return Path(pattern.replace("%A_%a", job).replace("%j", job).replace("%t", str(number))).open("ab")


def squeue(folder: Path, *_: str) -> None:
    for job, state in jobs(folder).items():
        if state in ("PENDING", "RUNNING"):
            print(job, state)


def sacct(folder: Path, *_: str) -> None:
    print("JobID|State|NodeList")
    for job, state in jobs(folder).items():
        print(f"{job}|{state}|localhost")


def scontrol(folder: Path, action: str, job: str) -> None:
    assert action == "requeue"
    _change(folder, job, requeue=True)


if __name__ == "__main__":
    home = Path(os.environ["FAKE_SLURM"])
    name, *rest = sys.argv[1:]
    {"sbatch": lambda path: sbatch(home, Path(path)), "work": lambda *a: work(home, *a)}.get(
        name, lambda *a: globals()[name](home, *a)
    )(*rest)
