"""A look at each flip by itself: how long the old color goes on answering, whether WebSockets live on,
and what is known of a drain.

The drill finds out whether promises hold; this finds out how far off they are where nothing was promised.
"""

import re
import socket
import sys
import threading
import time

import flip
from flip import BLUE, GREEN, PROXY, other
from processes import begin, proxy, ready, sample, until

# Even, so that it ends where it began.
FLIPS, PAUSE_S = 8, 0.6
CLIENTS, THINK_S = 6, 0.003
TUNNELS = 4


class Client:
    """Asks one question after the other, on one connection or on a new one each time."""

    QUESTION = b"GET /whoami HTTP/1.1\r\nHost: web.test\r\n\r\n"

    def __init__(self, keeps):
        self.keeps, self.stream = keeps, None
        # When a question was begun, when its answer was there, and which color gave it.
        self.answers, self.failures, self.asked_again = [], [], 0

    def ask(self):
        is_reused = self.stream is not None
        began = time.monotonic()
        try:
            answer = self.exchange()
        except OSError as error:
            self.leave()
            if is_reused:
                # RFC 9112, section 9.3.1: a kept connection may be closed at any time, and a client
                # that finds it closed asks again on another one.
                self.asked_again += 1
                return self.ask()
            self.failures.append(str(error))
            return None
        color = re.search(rb'"color":"(\w+)"', answer)[1].decode()
        self.answers.append((began, time.monotonic(), color))
        if not self.keeps or b"\nconnection: close" in answer.lower():
            self.leave()
        return color

    def exchange(self):
        if not self.stream:
            self.stream = socket.create_connection(("127.0.0.1", PROXY), timeout=5)
        self.stream.sendall(self.QUESTION)
        answer = b""
        while not answer.rstrip(b"\r\n0").endswith(b"}"):
            piece = self.stream.recv(65536)
            if not piece:
                raise ConnectionError(f"closed after {len(answer)} bytes")
            answer += piece
            if not answer.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(answer[:60])
        return answer

    def leave(self):
        if self.stream:
            self.stream.close()
        self.stream = None

    def go_on(self, stop):
        while not stop.is_set():
            self.ask()
            time.sleep(THINK_S)
        self.leave()


class Tunnel:
    """A WebSocket."""

    def __init__(self):
        self.stream = socket.create_connection(("127.0.0.1", PROXY), timeout=5)
        upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        self.stream.sendall(f"GET /traffic/ws HTTP/1.1\r\nHost: web.test\r\n{upgrade}{key}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = self.stream.recv(65536)
            if not piece:
                raise ConnectionError("a WebSocket was not answered")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"a WebSocket was refused: {answer[:60]}")
        self.color = self.echo()

    def echo(self):
        """Who answers a message, or None if it was cut."""
        try:
            # A text of two bytes, masked with zeros.
            self.stream.sendall(b"\x81\x82\0\0\0\0hi")
            frame = self.stream.recv(65536)
        except OSError:
            return None
        return frame[2:].decode().split()[0] if frame[:1] == b"\x81" else None

    def close(self):
        self.stream.close()


def look(peer, program, binary):
    begin(peer)
    with sample(binary, "blue") as blue, sample(binary, "green") as green:
        blue.listens(BLUE)
        green.listens(GREEN)
        with proxy(peer, program) as process:
            ready(peer, process)
            first = Client(keeps=False)
            until(f"{peer.name} answers", first.ask)
            drain = look_at_drain(peer)
            tunnels = [Tunnel() for _ in range(TUNNELS)]
            confirmed, bare = look_at_flips(peer, False), look_at_flips(peer, True)
            kept = sum(it.echo() == it.color for it in tunnels)
            for it in tunnels:
                it.close()
    return {"drain": drain, "tunnels_kept": kept, "confirmed": confirmed, "bare": bare}


def look_at_drain(peer):
    """What the peer tells of one WebSocket: before it, after a flip, and after its end."""
    told = [inside(peer, "blue")]
    tunnel = Tunnel()
    flip.flip(peer.name, "web", "green")
    time.sleep(0.3)
    told.append(inside(peer, "blue"))
    tunnel.close()
    time.sleep(0.5)
    told.append(inside(peer, "blue"))
    flip.flip(peer.name, "web", "blue")
    time.sleep(PAUSE_S)
    return told


def inside(peer, color):
    try:
        return peer.inside(color)
    except (LookupError, ValueError, TypeError, OSError) as error:
        print(f"{peer.name}: how many are inside cannot be read: {error!r}", file=sys.stderr)
        return None


def look_at_flips(peer, bare):
    """For each of some flips: how long it took, and how long after that requests began that the old
    color answered."""
    clients = [Client(keeps=number % 2 == 0) for number in range(CLIENTS)]
    stop, flips = threading.Event(), []
    threads = [threading.Thread(target=it.go_on, args=(stop,), daemon=True) for it in clients]
    for it in threads:
        it.start()
    time.sleep(PAUSE_S)
    for number in range(FLIPS):
        color = ("green", "blue")[number % 2]
        began, _, end = flip.flip(peer.name, "web", color, bare)
        flips.append((color, began, end))
        time.sleep(PAUSE_S)
    stop.set()
    for it in threads:
        it.join()
    answers = [it for client in clients for it in client.answers]
    nexts = [began for _, began, _ in flips[1:]] + [time.monotonic()]
    late_ms = []
    for (color, _, flipped), end in zip(flips, nexts, strict=True):
        # What had not ended when the next flip began may have got the color of that one.
        old = [began for began, done, it in answers if it == other(color) and flipped < began < done < end]
        late_ms.append((max(old, default=flipped) - flipped) * 1000)
    return {
        "took_ms": [(end - began) * 1000 for _, began, end in flips],
        "late_ms": late_ms,
        "asked": len(answers),
        "asked_again": sum(it.asked_again for it in clients),
        "failures": [it for client in clients for it in client.failures],
    }
