"""A real Slurm for the tests: slurmctld and two slurmd, two nodes on this machine, all in one folder."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

NODES = ("127.0.0.2", "127.0.0.3")  # loopback addresses: as node names they resolve without /etc/hosts
READY_SECONDS = 30.0

CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5  # also how long a requeued job waits; 5 is the smallest value
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
SlurmctldParameters=preempt_send_user_signal  # preemption sends --signal, not SIGTERM, where the job has one
SlurmdParameters=config_overrides  # two CPUs a node, whatever the machine has
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
OverTimeLimit=0
MinJobAge=3600  # scontrol show job answers for ended jobs too
ReturnToService=2
NodeName=DEFAULT CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=1000000
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=60
PartitionName=low Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace}
PartitionName=high PriorityTier=2 PreemptMode=OFF
"""


def free_ports(count: int) -> list[int]:
    """Return TCP ports of this machine at which nobody listens."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind(("", 0))
        return [sock.getsockname()[1] for sock in socks]


def leftovers(folder: Path) -> set[int]:
    """Return the processes of this cluster's steps, by slurmstepd's working folder, and all in their sessions."""
    steps: set[str] = set()
    sessions: dict[int, str] = {}
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            sessions[int(proc.name)] = (proc / "stat").read_text().rpartition(")")[2].split()[3]
            if (proc / "comm").read_text().startswith("slurmstepd") and (proc / "cwd").readlink() == folder:
                steps.add(sessions[int(proc.name)])
    return {pid for pid, session in sessions.items() if session in steps}


@contextlib.contextmanager
def cluster(folder: Path, grace: int = 5, kill_wait: int = 5, more: str = "") -> Iterator[dict[str, str]]:
    """Run a Slurm of two nodes below `folder`, and yield the environment in which srun and sbatch use it.

    `grace` is in seconds between the signal to a preempted job and its end, `kill_wait` from SIGTERM to SIGKILL; `more`
    is added to slurm.conf.
    """
    folder = folder.resolve()
    if len(str(folder)) > 70 or " " in str(folder):  # slurmstepd makes Unix sockets there: 108 characters at most
        raise ValueError(f"the folder's path is too long or has a space: {folder}")
    (folder / "state").mkdir(parents=True, exist_ok=True)
    conf, user = folder / "slurm.conf", getpass.getuser()
    port, *ports = free_ports(1 + len(NODES))
    nodes = "\n".join(f"NodeName={node} Port={p}" for node, p in zip(NODES, ports, strict=True))
    host = socket.gethostname().split(".")[0]
    conf.write_text(CONF.format(**locals()) + more)
    extra = {"SLURM_CONF": str(conf)}
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "SBATCH", "SALLOC"))} | extra
    env["PATH"] = env.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    commands = {"slurmctld": ["slurmctld", "-D", "-c"]} | {
        f"slurmd-{node}": ["slurmd", "-D", "-N", node] for node in NODES
    }
    programs = ("slurmctld", "slurmd", "sinfo", "squeue", "scancel")
    if missing := [program for program in programs if not shutil.which(program, path=env["PATH"])]:
        raise FileNotFoundError(f"not installed (Debian: slurm-wlm): {missing}")
    daemons: dict[str, subprocess.Popen[bytes]] = {}

    def ask(*command: str) -> str:
        try:
            return subprocess.run(command, env=env, capture_output=True, text=True, timeout=15).stdout
        except subprocess.TimeoutExpired:
            return ""

    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                daemons[name] = subprocess.Popen(
                    command,
                    env=env,
                    cwd=folder,
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        deadline = time.monotonic() + READY_SECONDS
        while sorted(ask("sinfo", "-hN", "-p", "low", "-o", "%N %T").splitlines()) != [f"{n} idle" for n in NODES]:
            ended = [f"{name} ended with {d.returncode}" for name, d in daemons.items() if d.poll() is not None]
            if ended or time.monotonic() > deadline:
                tails = [f"--- {n}.log\n" + (folder / f"{n}.log").read_text(errors="replace")[-2000:] for n in daemons]
                raise RuntimeError("\n".join([f"Slurm did not start: {ended or 'too slow'}", ask("sinfo"), *tails]))
            time.sleep(0.1)
        yield extra
    finally:
        if len(daemons) == len(commands) and all(daemon.poll() is None for daemon in daemons.values()):
            ask("scancel", "-u", user)
            deadline = time.monotonic() + 2
            while ask("squeue", "-h") and time.monotonic() < deadline:
                time.sleep(0.1)
        for daemon in daemons.values():
            daemon.kill()
            daemon.wait()
        for pid in leftovers(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
