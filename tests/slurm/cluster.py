"""A real SLURM cluster on this machine: munged, slurmctld and two slurmd on loopback, with two GPUs each as gres.

The GPUs are device files that stand in for some: SLURM hands them out as it does real ones. Needs root, and the
packages that `tests/slurm/install` installs. What is started is ended by its process id.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SETTINGS = Path("/etc/slurm")
"""The executor plugin starts jobs without SLURM_CONF, so that `srun` in them looks here."""
NODES = ("gpu1", "gpu2")
GPUS_PER_NODE = 2
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

SLURM_CONF = """\
ClusterName=xlift
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
MinJobAge=86400
MaxJobCount=20000
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=5
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=1,sched_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
NodeName=gpu[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=4 RealMemory=32000 Gres=gpu:2 \
State=UNKNOWN
PartitionName=gpu Nodes=gpu[1-2] Default=YES MaxTime=INFINITE State=UP
"""
GRES_CONF = """\
AutoDetect=off
NodeName=gpu1 Name=gpu File={folder}/dev/gpu[0-1]
NodeName=gpu2 Name=gpu File={folder}/dev/gpu[2-3]
"""


def why_not() -> str | None:
    """Why no cluster can be started here; None where one can."""
    if os.geteuid() != 0:
        return "a SLURM cluster is started as root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"SLURM is not installed: no {', '.join(missing)}"
    found = [name for name in ("slurm.conf", "gres.conf") if (SETTINGS / name).exists()]
    if found:
        return f"this machine has a SLURM configuration of its own: {SETTINGS / found[0]}"
    return None


@dataclass(frozen=True)
class ClusterJob:
    """A job as `scontrol show job` tells it: its fields by name."""

    fields: dict[str, str]

    @property
    def id(self) -> str:
        return self.fields["JobId"]

    @property
    def state(self) -> str:
        return self.fields["JobState"]

    @property
    def node(self) -> str:
        return self.fields["NodeList"]

    @property
    def of(self) -> str:
        """Rule and wildcards, as the executor plugin notes them."""
        return self.fields["Comment"]


class Cluster:
    """The running cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: dict[str, int] = {}

    def start(self) -> None:
        """Start everything, and wait until both nodes are idle."""
        for name in ("state", "dev", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        for index in range(GPUS_PER_NODE * len(NODES)):
            os.mknod(self.folder / "dev" / f"gpu{index}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        SETTINGS.mkdir(exist_ok=True)
        places = {"host": socket.gethostname(), "folder": self.folder}
        (SETTINGS / "slurm.conf").write_text(SLURM_CONF.format(**places), encoding="utf-8")
        (SETTINGS / "gres.conf").write_text(GRES_CONF.format(**places), encoding="utf-8")
        self._start_munge()
        self._start("slurmctld", ["slurmctld"], self.folder / "slurmctld.pid")
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd, and wait until it takes jobs."""
        pid = self.folder / f"slurmd-{node}.pid"
        pid.unlink(missing_ok=True)
        self._start(node, ["slurmd", "-N", node], pid)
        wait_for(lambda: self.node_state(node) == "idle", 60, f"node {node} does not come up")

    def crash_node(self, node: str) -> None:
        """Kill a node's slurmd and all that its jobs run, as a power cut does."""
        doomed = [psutil.Process(self._daemons.pop(node)), *self._of_jobs_on(node)]
        for process in doomed:
            with _gone():
                process.kill()
        psutil.wait_procs(doomed, timeout=10)

    def stop(self) -> None:
        """End every job, then every daemon, by process id."""
        run("scancel", "--user", "root")
        deadline = time.monotonic() + 20
        while any(job.state not in ENDED for job in self.jobs()) and time.monotonic() < deadline:
            time.sleep(0.5)
        left = [process for node in NODES for process in self._of_jobs_on(node)]
        # The nodes first, so that the controller hears of it.
        for name in [*NODES, "slurmctld", "munged"]:
            if name in self._daemons:
                left.append(psutil.Process(self._daemons.pop(name)))
                with _gone():
                    left[-1].terminate()
        _, alive = psutil.wait_procs(left, timeout=10)
        for process in alive:
            with _gone():
                process.kill()
        for name in ("slurm.conf", "gres.conf"):
            (SETTINGS / name).unlink(missing_ok=True)

    def node_state(self, node: str) -> str:
        """A node's state in lower case, without the mark of one that does not answer."""
        return run("sinfo", "-h", "-N", "-n", node, "-o", "%T").strip().rstrip("*")

    def jobs(self) -> list[ClusterJob]:
        """Every job the controller remembers."""
        lines = run("scontrol", "show", "job", "-o").splitlines()
        found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]
        return [ClusterJob(fields) for fields in found if "JobId" in fields]

    def daemon(self, name: str) -> psutil.Process:
        """A daemon's process: `slurmctld` or a node."""
        return psutil.Process(self._daemons[name])

    def _start_munge(self) -> None:
        """Authentication with a key and a socket of this cluster's own."""
        folder = self.folder
        # munged refuses a key or socket in a folder that others may write to, unless forced.
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        options = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munged.pid"}
        options |= {"log-file": folder / "munged.log", "seed-file": folder / "munged.seed"}
        self._start("munged", ["munged", "--force", *(f"--{k}={v}" for k, v in options.items())], options["pid-file"])

    def _start(self, name: str, command: list[str], pid: Path) -> None:
        """Start a daemon and note its process id."""
        run(*command)
        wait_for(lambda: pid.exists() and pid.read_text().strip() != "", 30, f"{name} does not start")
        self._daemons[name] = int(pid.read_text())

    def _of_jobs_on(self, node: str) -> list[psutil.Process]:
        """All processes of the cluster's jobs on a node: the step daemons, and what they started."""
        steps = []
        for process in psutil.process_iter(["name"]):
            with _gone():
                logs = [entry.path for entry in process.open_files()] if "slurmstepd" in process.name() else []
                if str(self.folder / f"slurmd-{node}.log") in logs:  # a step daemon writes to its node's log
                    steps.append(process)
        return [*steps, *(child for step in steps for child in _children(step))]


def _children(process: psutil.Process) -> list[psutil.Process]:
    with _gone():
        return process.children(recursive=True)
    return []


@contextmanager
def _gone() -> Iterator[None]:
    """Take it in one's stride that a process ended in the meantime."""
    with suppress(psutil.Error):
        yield


def run(*command: str) -> str:
    """Run a command to its end; what it printed."""
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.stdout


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until something is so; fail with `what` where it does not become so."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(what)
        time.sleep(0.2)
