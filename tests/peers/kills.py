#!/usr/bin/env python3
"""Kills Flipgate again and again in the middle of keyed changes, and checks what it comes back to.

    tests/peers/kills.py [--program target/release/flipgate] [--rounds 500] [--seed N]

One client makes changes as fast as they are acknowledged: promotions of two services and new versions of the idle
pool, each under an idempotency key of its own and on the generation before it. At a random moment the process gets
SIGKILL and is started again. What it comes back to must be what was last acknowledged, or that and the change that
was on its way. That change is then sent once more under its key, and must have been made once.
"""

import argparse
import http.client
import json
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVICES = ("api", "web")


class Admin(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def call(self, method, path, body=None, **fields):
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        self.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self.getresponse()
        return answer.status, json.loads(answer.read())


def known(status):
    """What a status says of the state, without what moves by itself."""
    services = {}
    for name, service in status["services"].items():
        pools = {color: pool["version"] for color, pool in service["pools"].items()}
        services[name] = (service["active"], service["previous"], tuple(sorted(pools.items())))
    return status["generation"], tuple(sorted(services.items()))


def after(state, change):
    """The same after a change."""
    generation, services = state
    services = dict(services)
    kind, names, value = change
    for name in names:
        active, previous, pools = services[name]
        if kind == "promote":
            services[name] = (value, active, pools)
        else:
            idle = "green" if active == "blue" else "blue"
            services[name] = (active, previous, tuple(sorted({**dict(pools), idle: value}.items())))
    return generation + 1, tuple(sorted(services.items()))


class Client(threading.Thread):
    """Makes changes until the connection breaks."""

    def __init__(self, path, state, rng):
        super().__init__()
        self.path, self.state, self.rng = path, state, rng
        self.pending = None
        self.acknowledged = 0
        self.problem = None

    def run(self):
        admin = Admin(self.path)
        try:
            while True:
                self.pending = self.choose()
                status, body = send(admin, self.state, *self.pending)
                if status != 200:
                    self.problem = f"{self.pending}: {status} {body}"
                    return
                expected = after(self.state, self.pending[0])
                if known(body) != expected:
                    self.problem = f"acknowledged {known(body)}, expected {expected}"
                    return
                self.state, self.pending = expected, None
                self.acknowledged += 1
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return

    def choose(self):
        names = self.rng.choice((("web",), ("api",), SERVICES))
        active = dict(self.state[1])
        key = f"{self.rng.getrandbits(64):016x}"
        if len({active[name][0] for name in names}) > 1:
            names = names[:1]
        if self.rng.random() < 0.5:
            other = "green" if active[names[0]][0] == "blue" else "blue"
            return ("promote", names, other), key
        return ("set", names[:1], f"v{self.rng.getrandbits(20)}"), key


def send(admin, state, change, key):
    kind, names, value = change
    fields = {"If_Match": f'"{state[0]}"', "Idempotency_Key": key}
    if kind == "promote":
        # Nothing runs there: this is about the state, not about the gates.
        body = {"services": {it: value for it in names}, "force": True, "reason": "nothing runs there"}
        return admin.call("POST", "/v1/promote", body, **fields)
    active = dict(state[1])[names[0]][0]
    idle = "green" if active == "blue" else "blue"
    body = {"version": value, "endpoints": ["127.0.0.1:9"]}
    return admin.call("PUT", f"/v1/services/{names[0]}/pools/{idle}", body, **fields)


def start(program, folder, log):
    process = subprocess.Popen(
        [program, "run", "--config", folder / "flipgate.toml"], stderr=log, stdout=subprocess.DEVNULL
    )
    deadline = time.time() + 30
    while time.time() < deadline:
        if process.poll() is not None:
            sys.exit(f"ended by itself: {(folder / 'log').read_text()[-2000:]}")
        try:
            admin = Admin(folder / "admin.sock")
            status, body = admin.call("GET", "/v1/status")
            if status == 200:
                return process, admin, body
        except OSError:
            time.sleep(0.002)
    sys.exit("it does not serve")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "target/release/flipgate"))
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=random.getrandbits(32))
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    acknowledged = made = unmade = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        pool = '{ version = "1", endpoints = ["127.0.0.1:9"] }'
        services = "".join(
            f'[service.{name}]\nhosts = ["{name}.test"]\nblue = {pool}\ngreen = {pool}\n' for name in SERVICES
        )
        (folder / "flipgate.toml").write_text(
            f'state_dir = "{folder}/state"\nworkers = 1\nlog.level = "warn,flipgate::care=off"\n'
            f'[admin]\nlisten = "unix:{folder}/admin.sock"\n'
            f'[[listener]]\nlisten = "127.0.0.1:0"\n{services}'
        )
        log = (folder / "log").open("ab")
        process, admin, body = start(arguments.program, folder, log)
        state = known(body)
        for round_ in range(arguments.rounds):
            where = f"seed {arguments.seed}, round {round_}"
            client = Client(folder / "admin.sock", state, rng)
            client.start()
            time.sleep(rng.uniform(0.001, 0.05))
            process.kill()
            process.wait()
            client.join()
            if client.problem:
                sys.exit(f"{where}: {client.problem}")
            acknowledged += client.acknowledged
            process, admin, body = start(arguments.program, folder, log)
            found, expected = known(body), client.state
            if client.pending:
                change = client.pending
                both = (expected, after(expected, change[0]))
                if found not in both:
                    sys.exit(f"{where}: came back to {found}, neither {both[0]} nor {both[1]}")
                is_made = found == both[1]
                made, unmade = made + is_made, unmade + (not is_made)
                # Once more under its key: made now, or known to have been made.
                status, body = send(admin, expected, *change)
                if status != 200 or body["generation"] != both[1][0]:
                    sys.exit(f"{where}: sent again, {change} is {status} {body}")
                state = known(admin.call("GET", "/v1/status")[1])
                if state != both[1]:
                    sys.exit(f"{where}: sent again, it came to {state}, not {both[1]}")
            else:
                if found != expected:
                    sys.exit(f"{where}: came back to {found}, not {expected}")
                state = found
        process.kill()
        process.wait()
    print(
        f"{arguments.rounds} kills, {acknowledged} acknowledged changes, 0 lost, 0 wrong states; of the changes on "
        f"their way {made} were found and {unmade} were not (seed {arguments.seed})"
    )


if __name__ == "__main__":
    main()
