"""Load through Flipgate by h2load, over HTTP/2 by TLS and in the clear and over HTTP/1.1 by TLS, while
the service is flipped all the time. Needs h2load, and haproxy for endpoints that speak HTTP/2; without
it those are left out.
"""

import asyncio
import re
import shutil
import socket
import subprocess
import threading
import time

from sandbox import eventually, free_port, program, same, true

REQUESTS = 3000


# --- The application -----------------------------------------------------------------------------


class Answers(asyncio.Protocol):
    """Gives 100 KB for /big, what came for a POST, and its color for everything else."""

    def __init__(self, color):
        self.color, self.came = color.encode(), b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.came += data
        while b"\r\n\r\n" in self.came:
            head, rest = self.came.split(b"\r\n\r\n", 1)
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
            length = int(length[1]) if length else 0
            if len(rest) < length:
                return
            body, self.came = rest[:length], rest[length:]
            body = body or (b"x" * 100_000 if head.startswith(b"GET /big") else self.color)
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def start_app(color):
    """Its port. It ends with the program."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    serving = loop.create_server(lambda: Answers(color), "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(serving, loop).result(5)
    return server.sockets[0].getsockname()[1]


HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend blue
    bind 127.0.0.1:{h2_blue} proto h2
    http-request return status 200 content-type text/plain string blue
frontend green
    bind 127.0.0.1:{h2_green} proto h2
    http-request return status 200 content-type text/plain string green
"""


def start_haproxy(sandbox, ports):
    with (sandbox.folder / "haproxy.log").open("wb") as out:
        file = sandbox.write("haproxy.cfg", HAPROXY.format(**ports))
        sandbox.start(["haproxy", "-db", "-f", file], stdout=out, stderr=out)
    eventually(lambda: is_open(ports["h2_green"]), 5, "haproxy does not start")


def is_open(port):
    with socket.socket() as it:
        return it.connect_ex(("127.0.0.1", port)) == 0


# --- What is promised ----------------------------------------------------------------------------

CONFIG = """
[[listener]]
listen = "127.0.0.1:0"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"

[service.h1]
path  = "/"
blue  = {{ endpoints = ["127.0.0.1:{blue}"] }}
green = {{ endpoints = ["127.0.0.1:{green}"] }}
"""

CONFIG_H2 = """
[service.h2]
path  = "/h2"
blue  = {{ endpoints = ["127.0.0.1:{h2_blue}"], protocol = "h2" }}
green = {{ endpoints = ["127.0.0.1:{h2_green}"], protocol = "h2" }}
"""


def main(sandbox, promises):
    cert, key = sandbox.certificate("sandbox")
    ports = {color: start_app(color) for color in ("blue", "green")}
    config = CONFIG
    if shutil.which("haproxy"):
        ports |= {it: free_port() for it in ("h2_blue", "h2_green")}
        start_haproxy(sandbox, ports)
        config += CONFIG_H2
    else:
        print("left out: endpoints that speak HTTP/2, since haproxy is not there", flush=True)
    flipgate = sandbox.flipgate(config.format(cert=cert, key=key, **ports))
    tls, clear = flipgate.ports

    body = sandbox.folder / "body"
    body.write_bytes(b"y" * 20_000)
    ways = {
        "h2 by TLS": [f"https://127.0.0.1:{tls}"],
        "h2 in the clear": [f"http://127.0.0.1:{clear}"],
        "http/1.1 by TLS": ["--h1", f"https://127.0.0.1:{tls}"],
    }
    for way, (*options, origin) in ways.items():
        load(promises, flipgate, way, "h1", [*options, origin + "/"])
        load(promises, flipgate, f"{way}, 100 KB each", "h1", [*options, origin + "/big"], 1000)
        load(promises, flipgate, f"{way}, 20 KB up and down", "h1",
             [*options, "-d", str(body), origin + "/"], 1000)
        if "h2_blue" in ports:
            load(promises, flipgate, f"{way}, on by h2", "h2", [*options, origin + "/h2"])
    with promises.that("in the end both colors are drained of all load"):
        eventually(lambda: is_empty(flipgate.status()), 3, "a request is left")


def load(promises, flipgate, way, service, options, requests=REQUESTS):
    before = answered(flipgate, service)
    command = ["h2load", "-n", str(requests), "-c", "10", "-t", "1"]
    command += [] if "--h1" in options else ["-m", "10"]
    process = subprocess.Popen(command + options, stdout=subprocess.PIPE, text=True)
    flips = 0
    deadline = time.monotonic() + 10
    try:
        while process.poll() is None and time.monotonic() < deadline:
            flipgate.promote(**{service: ("green", "blue")[flips % 2]})
            flips += 1
            time.sleep(0.01)  # a moment of load between two flips
    finally:
        process.kill() if process.poll() is None else None
    said = process.communicate(timeout=5)[0]
    with promises.that(f"{way}: {requests} requests, none fails, all are 2xx, while it is flipped"):
        true(process.returncode == 0, f"h2load ended with {process.returncode}: {said[-200:]}")
        seen = re.search(r"^requests: .*$", said, re.M)[0]
        same(seen, f"requests: {requests} total, {requests} started, {requests} done, "
             f"{requests} succeeded, 0 failed, 0 errored, 0 timeout")
        seen = re.search(r"^status codes: .*$", said, re.M)[0]
        same(seen, f"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")
    with promises.that(f"{way}: both colors had a share, of flips there were many"):
        after = answered(flipgate, service)
        shares = [after[it] - before[it] for it in ("blue", "green")]
        true(min(shares) > 0 and flips >= 5, f"shares {shares}, {flips} flips")
        same(sum(shares), requests)
    if flips % 2:
        flipgate.promote(**{service: "blue"})


def answered(flipgate, service):
    counts = {"blue": 0, "green": 0}
    for name, value in flipgate.metrics().items():
        if name.startswith("flipgate_requests_total{") and f'service="{service}"' in name:
            counts[re.search('color="(.*?)"', name)[1]] += value
    return counts


def is_empty(status):
    return not any(
        pool["in_flight"] for it in status["services"].values() for pool in it["pools"].values())


if __name__ == "__main__":
    program(main)
