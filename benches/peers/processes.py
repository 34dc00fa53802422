"""Processes of ours: started, waited for, measured and ended by their own numbers."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import flip
from flip import FOLDER, PORTS, PROXY

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def output(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def cpu_s(root):
    """CPU time of a process and all its descendants, and of those that have ended and were waited for:
    a proxy that reloads replaces its workers."""
    parents, times = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        # utime, stime, and those of children that were waited for.
        parents[pid], times[pid] = int(fields[1]), sum(int(it) for it in fields[11:15])

    def is_within(pid):
        while pid not in (0, root):
            pid = parents.get(pid, 0)
        return pid == root

    return sum(it for pid, it in times.items() if is_within(pid)) / TICKS


def busy_s():
    """CPU time that the machine has spent on all processes."""
    names = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
    counts = dict(zip(names, (int(it) for it in pathlib.Path("/proc/stat").read_text().split()[1:9]), strict=True))
    return sum(count for name, count in counts.items() if name not in ("idle", "iowait")) / TICKS


def wait_for_quiet(patience_s=45):
    """Until other processes have hardly used the machine for two seconds; or not, if that takes too long."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        before = busy_s()
        time.sleep(2)
        if busy_s() - before < 0.6:
            return


class Running:
    """A process from the beginning of a block to its end."""

    def __init__(self, command, name):
        self.command, self.name = [str(it) for it in command], name

    def __enter__(self):
        environment = dict(os.environ, HOME=FOLDER, XDG_DATA_HOME=FOLDER, XDG_CONFIG_HOME=FOLDER)
        with open(f"{FOLDER}/{self.name}.log", "ab") as out:
            self.process = subprocess.Popen(self.command, stdout=out, stderr=out, env=environment, cwd=ROOT)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            # Some wait for their last WebSocket.
            for child in flip.children(self.process.pid):
                os.kill(child, signal.SIGKILL)
            self.process.kill()
            self.process.wait()

    @property
    def pid(self):
        return self.process.pid

    def listens(self, port):
        def is_so():
            if self.process.poll() is not None:
                log = pathlib.Path(f"{FOLDER}/{self.name}.log").read_text()
                raise ChildProcessError(f"{self.name} ended at once: {log[-500:]}")
            return is_open(port)

        until(f"{self.name} listens", is_so)


def sample(binary, color):
    """The sample application of flipgate."""
    listen = f"127.0.0.1:{PORTS[color]}"
    return Running([binary, "sample", "--color", color, "--version", "1", "--listen", listen], f"sample-{color}")


def proxy(peer, program):
    return Running(peer.command(program), peer.name)


def begin(peer):
    """An empty folder, with what the peer reads and changes."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    peer.lay_out()


def ready(peer, process):
    process.listens(PROXY)
    peer.started()


def until(what, is_so, patience_s=10):
    end = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {patience_s} s")
        time.sleep(0.02)


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
