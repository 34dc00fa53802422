"""A client and an endpoint vanish without a packet, behind a firewall that drops what comes, while bytes are
sent to them. Needs unshare, ip and nft: everything happens in a network of its own.
"""

import contextlib
import socket
import sys
import time

from sandbox import drop, end, eventually, free_port, nft, program_in_own_network, same, true

STALL = 4  # seconds

# An application that sends an event each quarter of a second for as long as it is read, and reads what is posted.
APP = r"""
import asyncio, sys
async def serve(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            while await reader.read(65536):
                pass
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b"data: " + b"x" * 1024 + b"\n\n")
            await writer.drain()
            await asyncio.sleep(0.25)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""

CONFIG = """
[timeouts]
stall = "{stall}s"
upstream_response = "20m"
[[listener]]
listen = "127.0.0.1:0"
[service.web]
health.interval = "24h"
blue = {{ endpoints = ["127.0.0.1:{blue}"] }}
green = {{ endpoints = ["127.0.0.1:{green}"] }}
"""


def in_flight(flipgate, color):
    return flipgate.status()["services"]["web"]["pools"][color]["in_flight"]


def main(sandbox, promises):
    app, blue, green = sandbox.write("app.py", APP), free_port(), free_port()
    apps = [sandbox.start([sys.executable, app, port]) for port in (blue, green)]

    def listens(port):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True

    eventually(lambda: listens(blue) and listens(green), 10, "the applications do not start")
    # Only now: an endpoint that refuses its first health check is not checked again for a day.
    flipgate = sandbox.flipgate(CONFIG.format(stall=STALL, blue=blue, green=green))
    client = socket.create_connection(("127.0.0.1", flipgate.ports[0]))
    client.sendall(b"GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n")
    true(client.recv(65536).startswith(b"HTTP/1.1 200"), "no answer")
    other = socket.create_connection(("127.0.0.1", flipgate.ports[0]))
    other.sendall(b"GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n")
    eventually(lambda: in_flight(flipgate, "blue") == 2, 10, "two are not in flight")
    drop(client.getsockname()[1])
    flipgate.promote(web="green")
    began = time.monotonic()
    with promises.that("a client that has vanished holds a drain up for `stall` and a little"):
        eventually(lambda: in_flight(flipgate, "blue") == 1, STALL + 10, "it is waited for")
        print(f"     {time.monotonic() - began:.1f} s", flush=True)
    with promises.that("a client that still reads stays"):
        time.sleep(STALL + 2)
        same(in_flight(flipgate, "blue"), 1)
    other.close()
    with promises.that("the drain ends"):
        eventually(lambda: flipgate.drain("web")["drained"], 10, "it does not")

    silent = socket.create_connection(("127.0.0.1", flipgate.ports[0]))
    silent.sendall(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9\r\n\r\n")
    eventually(lambda: in_flight(flipgate, "green") == 1, 10, "it is not in flight")
    drop(green)
    silent.sendall(b"123456789")
    began = time.monotonic()
    with promises.that("an endpoint that has vanished ends what waits for its answer"):
        silent.settimeout(STALL + 10)
        answer = silent.recv(65536)
        true(answer.startswith(b"HTTP/1.1 502"), answer[:100])
        print(f"     {time.monotonic() - began:.1f} s", flush=True)
    nft()
    with promises.that("both kinds of loss are distinguished from timeouts"):
        true(time.monotonic() - began < 60, "it took as long as upstream_response")
    for it in apps:
        end(it)
    with promises.that("nothing is left in flight"):
        eventually(lambda: in_flight(flipgate, "green") == 0, 10, "something is")


if __name__ == "__main__":
    program_in_own_network(main, 90)
