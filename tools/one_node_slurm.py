"""A real Slurm of one node, on loopback only: `python -m tools.one_node_slurm start`, later `stop`.

For the test of PROFILE=slurm, and for trying that profile without a cluster. Needs root, and Debian's packages
slurm-wlm and munge. It has its own munge key and socket, and leaves a Slurm that it did not configure alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CONFIGURATION = Path("/etc/slurm/slurm.conf")  # srun and sbatch look here, whatever the shell
STATE = Path("/var/lib/one-node-slurm")
MARK = "# Made by tools/one_node_slurm.py, which removes it again.\n"
DAEMONS = ("munged", "slurmctld", "slurmd")  # in the order they need each other
INSTALL = "apt-get install slurm-wlm munge"
PATIENCE = 60  # seconds

# linuxproc, none: a container has no cgroups to hand out. cred_expire: how long a requeued job waits, by itself 120 s.
# Memory is not shared out among jobs (CR_Core), but a job that asks for more than the node has is refused.
TEXT = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
ReturnToService=2
KillWait=5
StateSaveLocation={state}/slurmctld
SlurmctldPidFile={state}/slurmctld.pid
SlurmctldLogFile={state}/slurmctld.log
SlurmdSpoolDir={state}/slurmd
SlurmdPidFile={state}/slurmd.pid
SlurmdLogFile={state}/slurmd.log
{node} NodeAddr=127.0.0.1
PartitionName=one Nodes=ALL Default=YES
"""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.one_node_slurm", description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    action = parser.parse_args(arguments).action
    why = obstacle()
    if why:
        print(f"error: {why}", file=sys.stderr)
        return 2
    if action == "start":
        start()
    else:
        stop()
    return 0


def obstacle() -> str:
    """Why this machine can have no one-node Slurm of ours, '' if it can."""
    missing = [daemon for daemon in DAEMONS if shutil.which(daemon) is None]
    if missing:
        return f"{' and '.join(missing)} not found. On Debian and Ubuntu: {INSTALL}"
    if os.geteuid() != 0:
        return "only root can start Slurm's daemons."
    if CONFIGURATION.exists() and not CONFIGURATION.read_text().startswith(MARK):
        return f"{CONFIGURATION} is another Slurm's. Move it away to have a one-node Slurm here."
    return ""


def start() -> None:
    """Start what is not running yet; return when the node takes jobs. OSError if it does not within a minute."""
    for folder in (STATE, STATE / "slurmctld", STATE / "slurmd"):
        folder.mkdir(mode=0o755, exist_ok=True)
    key = STATE / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
    if not CONFIGURATION.exists():
        CONFIGURATION.parent.mkdir(exist_ok=True)
        node = subprocess.check_output(["slurmd", "-C"], text=True).splitlines()[0]
        CONFIGURATION.write_text(
            MARK + TEXT.format(host=socket.gethostname().partition(".")[0], state=STATE, node=node)
        )
    files = ("socket", "pid-file", "log-file", "seed-file", "key-file")
    own = [f"--{name}={STATE}/munge.{name.removesuffix('-file')}" for name in files]
    for daemon, options in {"munged": own, "slurmctld": [], "slurmd": []}.items():
        if pid(daemon) is None:
            subprocess.run([daemon, *options], check=True)
    wait("the node to take jobs", lambda: node_state() in ("idle", "mixed", "allocated"))


def stop() -> None:
    """End the jobs and what `start` has started, and remove every trace of it."""
    if pid("slurmctld") is not None:
        subprocess.run(["scancel", "--me"], check=False, capture_output=True)
    for daemon in reversed(DAEMONS):
        number = pid(daemon)
        if number is not None:
            os.kill(number, signal.SIGTERM)
            ended(daemon, number)
    CONFIGURATION.unlink(missing_ok=True)
    shutil.rmtree(STATE, ignore_errors=True)


def pid(daemon: str) -> int | None:
    """The process of a daemon that `start` has started, if it lives."""
    file = STATE / ("munge.pid" if daemon == "munged" else f"{daemon}.pid")
    number = file.read_text().strip() if file.exists() else ""
    name = Path("/proc") / number / "comm"
    # the number may be another process's by now
    return int(number) if number and name.exists() and name.read_text().strip() == daemon else None


def node_state() -> str:
    answer = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
    return answer.stdout.strip()


def ended(daemon: str, number: int) -> None:
    # not its pid file: that goes first
    wait(f"{daemon} to end", lambda: not (Path("/proc") / str(number)).exists())


def wait(what: str, done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > end:
            raise TimeoutError(f"Waited {PATIENCE} s for {what}. See {STATE}/*.log.")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
