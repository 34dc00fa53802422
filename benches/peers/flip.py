#!/usr/bin/env python3
"""Makes a color active in a peer, in the way that its documentation has.

    flip.py PEER SERVICE COLOR [--bare]

It returns when the peer has confirmed the change, where the peer has any means to; `--bare` leaves out
what only waits for that. What it took, without the start of Python, is appended to FOLDER/flips.

Imports are few, since the start of this program is a part of every flip of the drill.
"""

import os
import signal
import socket
import sys
import time

FOLDER = "/tmp/flipgate-peers"
BLUE, GREEN, PROXY, ADMIN = 19221, 19222, 19223, 19224
PORTS = {"blue": BLUE, "green": GREEN}
PATIENCE_S = 5


class NotFlipped(Exception):
    pass


def other(color):
    return "green" if color == "blue" else "blue"


# Ways to talk


def call(method, path, body="", content_type="application/json"):
    """Status and text of an answer of the admin API. One connection for each call: Caddy closes them
    all when its configuration changes."""
    with socket.create_connection(("127.0.0.1", ADMIN), timeout=PATIENCE_S) as stream:
        fields = f"Host: 127.0.0.1:{ADMIN}\r\nConnection: close\r\nContent-Type: {content_type}\r\n"
        stream.sendall(f"{method} {path} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
    return int(answer.split()[1]), answer.decode()


def haproxy(commands):
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE_S)
        stream.connect(f"{FOLDER}/haproxy.sock")
        stream.sendall(commands.encode() + b"\n")
        answer = b""
        while piece := stream.recv(65536):
            answer += piece
    return answer.decode()


def move_over(path, text):
    """Replaces a file in one step."""
    # Not in the same folder, which may be watched.
    with open(f"{FOLDER}/next", "w") as file:
        file.write(text)
    os.rename(f"{FOLDER}/next", path)


def wait_for(what, is_so):
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise NotFlipped(f"not within {PATIENCE_S} s: {what}")
        time.sleep(0.001)


def children(pid):
    """Of the main thread, which is the one that forks."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(it) for it in file.read().split()]


# One for each peer. Each yields once: what comes before is the bare command, what comes after waits
# for the peer's own confirmation.


def flip_flipgate(service, color):
    status, text = call("POST", "/v1/promote", f'{{"services":{{"{service}":"{color}"}}}}')
    if status != 200:
        raise NotFlipped(text)
    yield


def flip_nginx(service, color):
    with open(f"{FOLDER}/nginx.pid") as file:
        master = int(file.read())
    old = children(master)
    with open(f"{FOLDER}/nginx-upstream.conf") as file:
        text = file.read()
    move_over(f"{FOLDER}/nginx-upstream.conf", text.replace(str(PORTS[other(color)]), str(PORTS[color])))
    os.kill(master, signal.SIGHUP)
    yield
    # Nothing says that a reload is done. But a worker tells in its title that it has been told to
    # shut down, just before it closes its listening socket.
    wait_for("old workers are shutting down", lambda: all(is_shutting_down(it) for it in old))


def is_shutting_down(worker):
    try:
        with open(f"/proc/{worker}/cmdline") as file:
            return "is shutting down" in file.read()
    except OSError:
        return True


def flip_haproxy_map(service, color):
    answer = haproxy(f"set map {FOLDER}/haproxy.map {service} {color}")
    if answer.strip():
        raise NotFlipped(answer)
    yield


def flip_haproxy_state(service, color):
    ready = f"set server {service}/{color} state ready"
    answer = haproxy(f"{ready}; set server {service}/{other(color)} state drain")
    if answer.strip():
        raise NotFlipped(answer)
    yield


def flip_caddy(service, color):
    # Answers when the new configuration runs.
    status, text = call("PATCH", f"/id/{service}/upstreams", f'[{{"dial":"127.0.0.1:{PORTS[color]}"}}]')
    if status != 200:
        raise NotFlipped(text)
    yield


def flip_traefik(service, color):
    path = f"{FOLDER}/traefik/{service}.yml"
    with open(path) as file:
        text = file.read()
    move_over(path, text.replace(f"service: {other(color)}", f"service: {color}"))
    yield
    wanted = f'"service":"{color}"'
    wait_for(wanted, lambda: wanted in call("GET", f"/api/http/routers/{service}@file")[1])


def flip_envoy(service, color):
    path = f"{FOLDER}/envoy/routes.yaml"
    with open(path) as file:
        text = file.read()
    version = f"{color}-{time.monotonic_ns()}"
    lines = [f'version_info: "{version}"' if it.startswith("version_info") else it for it in text.splitlines()]
    text = "\n".join(lines).replace(f"cluster: {other(color)}", f"cluster: {color}")
    move_over(path, text + "\n")
    yield
    wait_for(version, lambda: version in call("GET", "/stats?filter=version_text")[1])


WAYS = {
    "flipgate": flip_flipgate,
    "nginx": flip_nginx,
    "nginx-mainline": flip_nginx,
    "haproxy-map": flip_haproxy_map,
    "haproxy-state": flip_haproxy_state,
    "caddy": flip_caddy,
    "traefik": flip_traefik,
    "envoy": flip_envoy,
}


def flip(peer, service, color, bare=False):
    """When it was called, when the bare command was done, and when it was confirmed: monotonic."""
    began = time.monotonic()
    way = WAYS[peer](service, color)
    next(way)
    done = time.monotonic()
    if not bare:
        for _ in way:
            pass
    return began, done, time.monotonic()


def main(peer, service, color, *options):
    try:
        began, done, confirmed = flip(peer, service, color, bare="--bare" in options)
    except (NotFlipped, OSError) as error:
        sys.exit(f"{peer} is not on {color}: {error}")
    with open(f"{FOLDER}/flips", "a") as file:
        file.write(f"{(done - began) * 1000:.3f} {(confirmed - began) * 1000:.3f}\n")


if __name__ == "__main__":
    if len(sys.argv) < 4 or sys.argv[1] not in WAYS:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(*sys.argv[1:])
