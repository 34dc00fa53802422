"""One of two endpoints of the active color goes away under load, by SIGTERM, by SIGKILL and behind a
firewall that drops what comes, and comes back. Needs unshare, ip and nft: everything happens in a
network of its own.
"""

import asyncio
import collections
import signal
import subprocess
import sys
import threading
import time

from sandbox import drop, end, eventually, free_port, nft, program_in_own_network, true

CLIENTS = 12
INTERVAL = 2.0  # seconds between two health checks, the default

# An application with one worker. On SIGTERM it stops listening, answers what it has begun, and ends.
APP = r"""
import asyncio, os, signal, sys
port, name = int(sys.argv[1]), sys.argv[2]
idle, busy, ending = set(), set(), False
async def serve(reader, writer):
    try:
        while not ending:
            idle.add(writer)
            head = await reader.readuntil(b"\r\n\r\n")
            idle.discard(writer); busy.add(writer)
            if head.startswith(b"POST"):
                await reader.readexactly(2)
            await asyncio.sleep(0.005)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name.encode()))
            await writer.drain()
            busy.discard(writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        idle.discard(writer); busy.discard(writer); writer.close()
async def main():
    global ending
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    ending = True
    server.close()
    for writer in list(idle):
        writer.close()
    while busy:
        await asyncio.sleep(0.01)
    os._exit(0)
asyncio.run(main())
"""

CONFIG = """
[timeouts]
upstream_response = "20s"
[[listener]]
listen = "127.0.0.1:0"
[service.web]
blue = {{ endpoints = ["127.0.0.1:{one}", "127.0.0.1:{two}"] }}
"""


class Load:
    """Clients with keep-alive that send GET and POST in turn, each with a number of its own."""

    def __init__(self, port):
        self.port, self.stopping = port, False
        self.answers, self.failed, self.number = collections.Counter(), [], 0
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.running = [
            asyncio.run_coroutine_threadsafe(self.client(), self.loop) for _ in range(CLIENTS)
        ]

    async def client(self):
        reader = writer = None
        while not self.stopping:
            self.number += 1
            method, path = ("GET", "POST")[self.number % 2], f"/{self.number}"
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                body = "Content-Length: 2\r\n\r\nok" if method == "POST" else "\r\n"
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: a.test\r\n{body}".encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
                status = int(head.split(b" ")[1])
                length = next(it for it in head.lower().split(b"\r\n") if b"content-length:" in it)
                answer = await reader.readexactly(int(length.split(b":")[1]))
                if status == 200:
                    self.answers[answer.decode()] += 1
                else:
                    self.failed.append((method, path, status))
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
                self.failed.append((method, path, type(error).__name__))
                writer = None

    def stop(self):
        self.stopping = True
        for it in self.running:
            it.result(40)
        return self.answers, self.failed


def health(flipgate):
    pool = flipgate.status()["services"]["web"]["pools"]["blue"]
    return [it["health"] for it in pool["endpoints"]]


def main(sandbox, promises):
    ports = [free_port(), free_port()]
    app = sandbox.write("app.py", APP)

    def start(name):
        port = ports["onetwo".index(name) // 3]
        log = (sandbox.folder / f"{name}.log").open("ab")
        return sandbox.start([sys.executable, app, port, name], stderr=log, stdout=log)

    one, two = start("one"), start("two")
    flipgate = sandbox.flipgate(CONFIG.format(one=ports[0], two=ports[1]))
    eventually(lambda: health(flipgate) == ["up", "up"], 10, "the endpoints do not come up")

    for what in ("SIGTERM", "SIGKILL", "a firewall"):
        load = Load(flipgate.ports[0])
        eventually(lambda load=load: all(load.answers[it] > 50 for it in ("one", "two")), 10)
        if what == "a firewall":
            drop(ports[0])
        else:
            one.send_signal(getattr(signal, what))
        with promises.that(f"{what}: the endpoint is known to be down"):
            eventually(lambda: health(flipgate)[0] == "down", 15, "it is not")
        others = load.answers["two"]
        with promises.that(f"{what}: the other one goes on meanwhile"):
            eventually(lambda load=load, others=others: load.answers["two"] > others + 50, 10)
        before = load.answers["one"]
        if what == "a firewall":
            nft()
        else:
            end(one)
            one = start("one")
            eventually(lambda: listens(ports[0]), 10, "it does not start")
        back = time.monotonic()
        with promises.that(f"{what}: it is back in rotation within its health interval"):
            eventually(lambda load=load, before=before: load.answers["one"] > before, 10)
            took = time.monotonic() - back
            # A busy machine is given half a second.
            true(took <= INTERVAL + 0.5, f"it took {took:.1f} s")
        answers, failed = load.stop()
        told = f"{sum(answers.values())} answers, failed: {failed[:20]}"
        print(f"     {what}: back after {took:.2f} s, {told}", flush=True)
        with promises.that(f"{what}: no GET fails"):
            true(not [it for it in failed if it[0] == "GET"], told)
        with promises.that(f"{what}: a POST fails only where it may have been acted on"):
            # Each client had at most one under way when the endpoint went.
            true(len(failed) <= CLIENTS, told)
        eventually(lambda: health(flipgate) == ["up", "up"], 10, "the endpoints do not come up")
    end(two)


def listens(port):
    found = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, timeout=10)
    return bool(found.stdout.strip())


if __name__ == "__main__":
    program_in_own_network(main, 90)
