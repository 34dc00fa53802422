"""What every program here needs: a folder, certificates, Flipgate itself, and a place for promises.

A program is `python tests/peers/NAME.py PATH_TO_FLIPGATE`. It prints a line for each promise and
returns 0 only if all were kept. It needs openssl, and what it names at its top.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

TIME_MAX = 30  # seconds for a whole program

OPENSSL_CONFIG = "[req]\ndistinguished_name = name\n[name]\n"


# --- Promises ------------------------------------------------------------------------------------


class Promises:
    """Counts what was kept, and prints it."""

    def __init__(self):
        self.broken = 0

    @contextlib.contextmanager
    def that(self, promise):
        """What is inside keeps the promise unless it raises."""
        try:
            yield
        except Exception as error:
            self.broken += 1
            seen = " ".join(str(error).split()) or type(error).__name__
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            print(f"FAIL {promise}: {kind}{seen[:500]}", flush=True)
        else:
            print(f"ok   {promise}", flush=True)


def same(seen, wanted):
    if seen != wanted:
        raise AssertionError(f"{short(seen)} instead of {short(wanted)}")


def true(seen, what):
    if not seen:
        raise AssertionError(what)


def short(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}… ({len(text)} characters)"


def eventually(condition, seconds=5.0, what="it did not happen"):
    """The first true value of `condition`. `what` is said without one, or says what to say."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what() if callable(what) else what}, for {seconds} s")
        time.sleep(0.02)


# --- The sandbox -----------------------------------------------------------------------------------


class OutOfTime(BaseException):
    pass


class Sandbox:
    """A temporary folder and what was started in it, all of which ends with it."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="flipgate-peers-"))
        self.ends = contextlib.ExitStack()
        self.ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.write("openssl.cnf", OPENSSL_CONFIG)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.ends.__exit__(*failure)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def certificate(self, name, hosts=("DNS:localhost", "IP:127.0.0.1"), authority=None):
        """A certificate and its key: (`name`.pem, `name`.key). One without hosts is an authority.
        One without an authority is its own."""
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        command = ["openssl", "req", "-x509", "-config", self.folder / "openssl.cnf", "-nodes"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
        command += ["-subj", f"/O=Peers/CN={name}", "-keyout", key, "-out", cert]
        if hosts:
            command += ["-addext", "subjectAltName=" + ",".join(hosts)]
        is_authority = "FALSE" if hosts else "TRUE"
        command += ["-addext", f"basicConstraints=critical,CA:{is_authority}"]
        if authority:
            command += ["-CA", authority[0], "-CAkey", authority[1]]
        subprocess.run(command, check=True, capture_output=True, timeout=10)
        return cert, key

    def start(self, command, **options):
        """A process that ends with the sandbox."""
        process = subprocess.Popen([str(it) for it in command], **options)
        self.ends.callback(end, process)
        return process

    def flipgate(self, config, clients=""):
        return self.ends.enter_context(Flipgate(self, config, clients))


def end(process):
    """Ends a process by its id, first gently."""
    for tell in (process.terminate, process.kill):
        if process.poll() is None:
            tell()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=8)
    return process.returncode


def free_port():
    """A port without a listener."""
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


# --- Flipgate ------------------------------------------------------------------------------------

COMMON = """
state_dir = "{folder}/state"
[admin]
listen = "127.0.0.1:0"
[clients]
internal = ["127.0.0.1/32"]
{clients}
[shutdown]
patience = "2s"
[log]
level = "{level}"
format = "json"
"""

# Where Flipgate's log is copied to in the end, with everything in it: to find out what went on.
LOG = os.environ.get("PEERS_LOG")


class Flipgate:
    """A running Flipgate. `config` is everything but the common part; `clients` are more lines for
    that table. Every listener has port 0: `ports` has the real ones, in the order of the file."""

    def __init__(self, sandbox, config, clients=""):
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=sandbox.folder))
        self.config = self.folder / "flipgate.toml"
        level = "debug" if LOG else "info"
        common = COMMON.format(folder=self.folder, clients=clients, level=level)
        self.config.write_text(common + config)
        self.log = self.folder / "log"
        command = [BINARY, "run", "--config", str(self.config)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, cwd=self.folder)
        try:
            self.admin = eventually(self.find_admin, 10, "Flipgate did not start")
        except BaseException:
            end(self.process)
            raise
        lines = self.lines("listening")
        self.ports = [int(it["listen"].rsplit(":", 1)[1]) for it in lines]

    def find_admin(self):
        if self.process.poll() is not None:
            raise AssertionError(f"Flipgate ended at once: {self.log.read_text()}")
        return next((it["admin"] for it in self.lines("started")), None)

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.stop()
        if LOG:
            shutil.copy(self.log, LOG)
        true("panicked" not in self.log.read_text(), "Flipgate has panicked: see its log")

    def stop(self):
        return end(self.process)

    def lines(self, message):
        """What was logged with this message."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [it for it in found if isinstance(it, dict) and it.get("message") == message]

    def call(self, method, path, body=None):
        """A call of the admin API: status and JSON."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.admin + path, data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def promote(self, **colors):
        code, answer = self.call("POST", "/v1/promote", {"services": colors})
        if code != 200:
            raise AssertionError(f"promote {colors}: {code} {answer}")
        return answer

    def status(self):
        return self.call("GET", "/v1/status")[1]

    def active(self, service):
        return self.status()["services"][service]["active"]

    def drain(self, service, wait=None):
        path = f"/v1/services/{service}/drain" + (f"?wait={wait}" if wait else "")
        return self.call("GET", path)[1]

    def metrics(self):
        """The samples, by name and labels as they are written."""
        with urllib.request.urlopen(self.admin + "/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        samples = (it.rsplit(" ", 1) for it in lines if it and not it.startswith("#"))
        return {name: float(value) for name, value in samples}



# --- The program ---------------------------------------------------------------------------------


def program(main, time_max=TIME_MAX):
    """Runs `main(sandbox, promises)` with the binary of the command line, within so many seconds."""
    global BINARY
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PATH_TO_FLIPGATE")
    BINARY = os.path.abspath(sys.argv[1])

    def ring(*_):
        raise OutOfTime

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(time_max)
    promises = Promises()
    began = time.monotonic()
    try:
        with Sandbox() as sandbox:
            main(sandbox, promises)
            signal.alarm(15)
    except OutOfTime:
        print(f"FAIL it is over in {time_max} s: it is not", flush=True)
        promises.broken += 1
    except Exception as error:
        print(f"FAIL it comes to its end: {type(error).__name__}: {error}", flush=True)
        promises.broken += 1
    signal.alarm(0)
    print(f"{promises.broken} broken, {time.monotonic() - began:.1f} s", flush=True)
    sys.stdout.flush()
    # Threads of servers that are in the middle of something are not waited for.
    os._exit(1 if promises.broken else 0)


def program_in_own_network(main, time_max=TIME_MAX):
    """The same in a network namespace of its own, where `drop` harms no other process. Needs unshare, ip and nft."""
    inside = "FLIPGATE_IN_OWN_NETWORK"
    if inside not in os.environ:
        os.environ[inside] = "yes"
        up = 'ip link set lo up && exec "$0" "$@"'
        command = ["unshare", "-rn", "sh", "-c", up, sys.executable, *sys.argv]
        os.execv(shutil.which("unshare"), command)
    program(main, time_max)


def drop(port):
    """Drops all packets to and from a port. Neither end is notified."""
    rules = [f"add rule inet f i tcp {it} {port} drop" for it in ("dport", "sport")]
    nft("add table inet f", "add chain inet f i { type filter hook input priority 0; }", *rules)


def nft(*rules):
    """The rules of the firewall, in place of those before."""
    for rule in ("flush ruleset", *rules):
        subprocess.run(["nft", *rule.split(" ", 1)], check=True, capture_output=True, timeout=10)
