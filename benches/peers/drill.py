"""`flipgate drill` against one peer, with the CPU time that the peer takes meanwhile."""

import json
import pathlib
import resource
import subprocess
import sys
import time

import flip
from flip import ADMIN, FOLDER, PORTS, PROXY
from processes import begin, busy_s, cpu_s, proxy, ready, wait_for_quiet

# Few downloads, so that each of them can be listed by the drill if a proxy loses all trailers.
MIX = "short=83,download=2,upload=5,ws=5,sse=5"
RATE, FLIP_EVERY, WARM_UP_S = 300, "1s", 2


def command(binary, flips, seconds):
    upstreams = (it for color, port in PORTS.items() for it in ("--upstream", f"web.{color}=127.0.0.1:{port}"))
    return [
        *(binary, "drill", "--url", f"http://127.0.0.1:{PROXY}", *upstreams),
        *(*flips, "--flip-every", FLIP_EVERY, "--rate", str(RATE), "--mix", MIX),
        *("--warm-up", f"{WARM_UP_S}s", "--duration", f"{seconds}s", "--report", f"{FOLDER}/drill.html", "--json"),
    ]


def drill(peer, program, binary, seconds):
    """The drill's report; in `cpu_s` the peer's CPU time, in `flip_ms` what each flip took without the
    start of the command, and in `others_cores` how many cores were busy with something else."""
    flip_py = pathlib.Path(flip.__file__).resolve()
    flips = ["--flip", f"{sys.executable} -S -E {flip_py} {peer.name} {{service}} {{color}}"]
    wait_for_quiet()
    begin(peer)
    with proxy(peer, program) as process:
        ready(peer, process)
        before, spent, began = cpu_s(process.pid), spent_elsewhere_s(process.pid), time.monotonic()
        report = run(command(binary, flips, seconds), seconds)
        used = cpu_s(process.pid) - before
        others = (spent_elsewhere_s(process.pid) - spent) / (time.monotonic() - began)
    took = [float(it.split()[1]) for it in pathlib.Path(f"{FOLDER}/flips").read_text().splitlines()]
    return report | {"cpu_s": used, "flip_ms": took, "others_cores": max(others, 0)}


def drill_of_drains(peer, program, binary, seconds):
    """The report of a drill that flips by Flipgate's own API, so that it hears of drains."""
    begin(peer)
    with proxy(peer, program) as process:
        ready(peer, process)
        return run(command(binary, ["--admin", f"http://127.0.0.1:{ADMIN}"], seconds), seconds)


def run(words, seconds):
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 120)
    # 1: a promise was broken, which is a result.
    if done.returncode not in (0, 1) or not done.stdout.strip():
        raise ChildProcessError(f"the drill returned {done.returncode}: {done.stderr[-1000:]}")
    return json.loads(done.stdout)


def spent_elsewhere_s(proxy_pid):
    """CPU time of all processes but the proxy and the drill with its applications: other load on this
    machine moves the latencies."""
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return busy_s() - cpu_s(proxy_pid) - ours.ru_utime - ours.ru_stime
