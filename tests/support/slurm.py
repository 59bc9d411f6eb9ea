"""A SLURM of one machine, in a folder of its own: munged, slurmctld and slurmd of the user who starts it."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.commands import PATIENCE

PATH = f"{os.environ['PATH']}:/usr/sbin"
DAEMONS = "munged", "slurmctld", "slurmd"
MISSING = [name for name in (*DAEMONS, "sbatch", "srun") if shutil.which(name, path=PATH) is None]
# Two partitions, of which the second one's jobs take the place of the first one's; a job that was queued again waits
# for its old credential to expire, which is 5 s at least.
CONFIG = """\
ClusterName=alexlab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes={host} State=UP PriorityTier=2 PreemptMode=OFF
"""


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """The cluster, by the variables of its commands' environment; none of its processes is left."""
    folder = Path(tempfile.mkdtemp(prefix="slurm"))  # a short name: it has sockets
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, ports=_ports(2), folder=folder, user=getpass.getuser()))
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-c", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config)],
    ]
    environment = {"SLURM_CONF": str(config), "PATH": PATH}
    daemons = []
    try:
        for command in commands:
            with (folder / "daemons.log").open("ab") as log:
                daemons.append(subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log))
            if command[0] == "munged":
                _until(lambda: (folder / "munge.socket").exists(), folder)
        _until(lambda: set(said(environment, "sinfo", "--noheader", "--format=%t").split()) == {"idle"}, folder)
        yield environment
    finally:
        with_jobs = len(daemons) == len(commands)
        if with_jobs:
            said(environment, "scancel", "--full", "--signal=KILL", "--user", getpass.getuser())
            said(environment, "scancel", "--user", getpass.getuser())
            _until(lambda: not said(environment, "squeue", "--noheader"), folder)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(60)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder)


def said(environment: dict[str, str], *command: str) -> str:
    """What one of SLURM's commands prints."""
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=PATIENCE)
    return done.stdout.strip()


def _ports(number: int) -> list[int]:
    """Some that are free now."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _until(is_so, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("\n".join(path.read_text(errors="replace") for path in folder.glob("*.log")))
        time.sleep(0.2)
