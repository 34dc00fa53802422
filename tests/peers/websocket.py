"""WebSockets through Flipgate: over HTTP/1.1 and over streams of HTTP/2 (RFC 8441), in the clear and
by TLS, to endpoints that speak HTTP/1.1 or HTTP/2. Needs websockets and h2, and haproxy for the
endpoints that speak HTTP/2; without it those are left out.
"""

import json
import shutil
import socket
import ssl
import struct
import threading

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side, State
from websockets.sync.client import connect
from websockets.sync.server import serve

from sandbox import eventually, free_port, program, same, true

BIG = bytes(range(256)) * 4096
WAIT = 5


# --- The application -----------------------------------------------------------------------------


class App:
    """Repeats what it hears, but for some words that have it do something else."""

    def __init__(self, color):
        self.color = color
        self.open = 0
        self.closes = []

    def start(self, sandbox, context=None):
        server = serve(
            self.talk, "127.0.0.1", 0, ssl=context, max_size=None,
            select_subprotocol=lambda _, offered: "chat" if "chat" in offered else None,
            process_request=self.answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sandbox.ends.callback(server.shutdown)
        return server.socket.getsockname()[1]

    def answer(self, connection, request):
        if request.path.endswith("/forbidden"):
            return connection.respond(403, "not here\n")
        if "Upgrade" not in request.headers:
            return connection.respond(200, self.color)
        return None

    def talk(self, ws):
        self.open += 1
        try:
            for message in ws:
                self.hear(ws, message)
        except ConnectionClosed:
            pass
        finally:
            self.closes.append((ws.close_code, ws.close_reason))
            self.open -= 1

    def hear(self, ws, message):
        match message:
            case "who":
                ws.send(self.color)
            case "head":
                ws.send(json.dumps(list(ws.request.headers.raw_items())))
            case "take parts":
                ws.send(json.dumps(list(ws.recv_streaming())))
            case "send parts":
                ws.send(iter(["one ", "two ", "three"]))
            case "ping me":
                ws.send("pong" if ws.ping("x").wait(WAIT) else "no pong")
            case "close":
                ws.close(4001, "enough")
            case "break":
                # With an RST: what a process that dies leaves behind.
                ws.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Its reader takes this for the end, and closes it.
                ws.socket.shutdown(socket.SHUT_RD)
            case _:
                ws.send(message)


# --- A client of HTTP/2, frame by frame ----------------------------------------------------------


class H2:
    """One connection. What h2 finds wrong with Flipgate's frames, it raises."""

    def __init__(self, port, cert=None):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
        if cert:
            context = ssl.create_default_context(cafile=cert)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.scheme = "https" if cert else "http"
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.events = []
        self.flush()
        self.wait_for(h2.events.RemoteSettingsChanged)

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def read(self):
        data = self.socket.recv(65536)
        true(data, "the connection has ended")
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.events += events
        self.flush()

    def take(self, kinds, stream):
        for event in self.events:
            if isinstance(event, kinds) and getattr(event, "stream_id", None) == stream:
                self.events.remove(event)
                return event
        return None

    def wait_for(self, kinds, stream=None):
        while not (event := self.take(kinds, stream)):
            if stream and (reset := self.take(h2.events.StreamReset, stream)):
                raise AssertionError(f"the stream is reset: {reset.error_code!r}")
            self.read()
        return event

    def ask(self, fields, ends):
        stream = self.h2.get_next_available_stream_id()
        authority = [(":scheme", self.scheme), (":authority", f"localhost:{self.port}")]
        self.h2.send_headers(stream, fields[:1] + authority + fields[1:], end_stream=ends)
        self.flush()
        return stream

    def get(self, path):
        """Status and content."""
        stream = self.ask([(":method", "GET"), (":path", path)], True)
        head = self.wait_for(h2.events.ResponseReceived, stream)
        content = b""
        while True:
            kinds = (h2.events.DataReceived, h2.events.StreamEnded)
            event = self.wait_for(kinds, stream)
            if isinstance(event, h2.events.StreamEnded):
                return dict(head.headers)[":status"], content
            content += event.data

    def open(self, path, *fields, protocol="websocket"):
        """An extended CONNECT, and the fields of its answer."""
        asked = [(":method", "CONNECT"), (":path", path), (":protocol", protocol)]
        stream = self.ask(asked + [("sec-websocket-version", "13"), *fields], False)
        return Tunnel(self, stream)

    def close(self):
        self.socket.close()


class Tunnel:
    """A WebSocket on a stream."""

    def __init__(self, connection, stream):
        self.connection, self.stream = connection, stream
        kinds = (h2.events.ResponseReceived, h2.events.StreamReset)
        event = connection.wait_for(kinds, stream)
        self.reset = getattr(event, "error_code", None)
        self.head = dict(getattr(event, "headers", None) or {})
        self.protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=None)
        self.frames = []

    def flush(self):
        """Sends what the windows take, and more when they have opened."""
        way = self.connection.h2
        for data in self.protocol.data_to_send():
            while data:
                room = way.local_flow_control_window(self.stream)
                room = min(room, way.max_outbound_frame_size, len(data))
                if room == 0:
                    self.connection.read()
                    continue
                way.send_data(self.stream, data[:room])
                self.connection.flush()
                data = data[room:]

    def say(self, message):
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self.flush()

    def frame(self, opcode):
        """The next frame of this kind."""
        while True:
            for frame in self.frames:
                if frame.opcode is opcode:
                    self.frames.remove(frame)
                    return frame
            event = self.connection.wait_for(h2.events.DataReceived, self.stream)
            self.protocol.receive_data(event.data)
            self.frames += self.protocol.events_received()
            self.flush()

    def ask(self, message):
        self.say(message)
        if isinstance(message, bytes):
            return bytes(self.frame(Opcode.BINARY).data)
        return bytes(self.frame(Opcode.TEXT).data).decode()

    def end(self):
        """Ends our side of the stream."""
        self.connection.h2.end_stream(self.stream)
        self.connection.flush()

    def close(self, code=1000, reason=""):
        """A clean end. Returns the code that comes back, when the stream has ended too."""
        self.protocol.send_close(code, reason)
        self.flush()
        back = struct.unpack("!H", self.frame(Opcode.CLOSE).data[:2])[0]
        self.end()
        self.connection.wait_for(h2.events.StreamEnded, self.stream)
        return back


# --- What is promised ----------------------------------------------------------------------------

CONFIG = """
[[listener]]
listen = "127.0.0.1:0"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"

[service.plain]
path  = "/plain"
blue  = {{ endpoints = ["127.0.0.1:{blue}"] }}
green = {{ endpoints = ["127.0.0.1:{green}"] }}

[service.https]
path  = "/https"
blue  = {{ endpoints = ["https://localhost:{blue_tls}"], tls.ca = "{cert}" }}
"""

CONFIG_H2 = """
[service.h2]
path  = "/h2"
blue  = {{ endpoints = ["127.0.0.1:{h2_blue}"], protocol = "h2" }}
green = {{ endpoints = ["127.0.0.1:{h2_green}"], protocol = "h2" }}

[service.alpn]
path  = "/alpn"
blue  = {{ endpoints = ["https://localhost:{alpn_blue}"], tls.ca = "{cert}" }}

[service.shy]
path  = "/shy"
blue  = {{ endpoints = ["https://localhost:{shy_blue}"], tls.ca = "{cert}" }}
"""

HAPROXY = """
global
    maxconn 100
    nbthread 1
    {option}
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
    timeout tunnel 20s
{frontends}
backend blue
    server blue 127.0.0.1:{blue}
backend green
    server green 127.0.0.1:{green}
"""

FRONTENDS = """
frontend h2_blue
    bind 127.0.0.1:{h2_blue} proto h2
    default_backend blue
frontend h2_green
    bind 127.0.0.1:{h2_green} proto h2
    default_backend green
frontend alpn_blue
    bind 127.0.0.1:{alpn_blue} ssl crt {both} alpn h2,http/1.1
    default_backend blue
"""

# Speaks HTTP/2, but does not say that it takes WebSockets over it.
SHY = "h2-workaround-bogus-websocket-clients"
FRONTEND_SHY = """
frontend shy_blue
    bind 127.0.0.1:{shy_blue} ssl crt {both} alpn h2,http/1.1
    default_backend blue
"""

# What an endpoint is, by the path of its service.
WAYS = {
    "/plain": "HTTP/1.1",
    "/https": "HTTP/1.1 by TLS",
    "/h2": "HTTP/2",
    "/alpn": "HTTP/2 by ALPN",
    "/shy": "HTTP/2 that takes no WebSockets",
}


def main(sandbox, promises):
    cert, key = sandbox.certificate("sandbox")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    blue, green = App("blue"), App("green")
    ports = {"blue": blue.start(sandbox), "green": green.start(sandbox)}
    ports["blue_tls"] = blue.start(sandbox, context)
    config, ways, flipped = CONFIG, ["/plain", "/https"], ["plain"]
    if shutil.which("haproxy"):
        ports |= {it: free_port() for it in ("h2_blue", "h2_green", "alpn_blue", "shy_blue")}
        ports["both"] = sandbox.write("both.pem", cert.read_text() + key.read_text())
        start_haproxy(sandbox, "", FRONTENDS, ports, ports["alpn_blue"])
        start_haproxy(sandbox, SHY, FRONTEND_SHY, ports, ports["shy_blue"])
        config, ways, flipped = CONFIG + CONFIG_H2, list(WAYS), ["plain", "h2"]
    else:
        print("left out: endpoints that speak HTTP/2, since haproxy is not there", flush=True)
    flipgate = sandbox.flipgate(config.format(cert=cert, key=key, **ports))
    tls, clear = flipgate.ports

    trust = ssl.create_default_context(cafile=cert)
    # This client reads and writes in two threads, and Python's ssl (before 3.13) may lose what is
    # written while a ticket of TLS 1.3 is read. The client of HTTP/2 below speaks TLS 1.3.
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    for path in ways:
        by_http1(promises, f"ws:// to {WAYS[path]}", f"ws://localhost:{clear}{path}", None, blue)
        by_http1(promises, f"wss:// to {WAYS[path]}", f"wss://localhost:{tls}{path}", trust, blue)
        by_http2(promises, f"h2 to {WAYS[path]}", (clear,), path, blue)
        by_http2(promises, f"h2 by TLS to {WAYS[path]}", (tls, cert), path, blue)
    connect_of_others(promises, (tls, cert))
    for service in flipped:
        url = f"wss://localhost:{tls}/{service}"
        with promises.that(f"/{service}: a flip comes to its end"):
            flip(promises, flipgate, service, url, trust, (tls, cert))
    with promises.that("in the end no request is in flight, by Flipgate's own count"):
        pools = [it["pools"] for it in flipgate.status()["services"].values()]
        same([it["in_flight"] for pool in pools for it in pool.values() if it["in_flight"]], [])
    with promises.that("in the end the application has no connection left"):
        left = lambda: f"{blue.open} on blue, {green.open} on green"
        eventually(lambda: blue.open == green.open == 0, 3, left)


def start_haproxy(sandbox, option, frontends, ports, port):
    config = HAPROXY.format(option=option, frontends=frontends.format(**ports), **ports)
    file = sandbox.write(f"haproxy-{port}.cfg", config)
    log = file.with_suffix(".log")
    with log.open("wb") as out:
        sandbox.start(["haproxy", "-db", "-f", file], stdout=out, stderr=out)
    eventually(lambda: is_open(port), 5, lambda: f"haproxy does not start: {log.read_text()}")


def is_open(port):
    with socket.socket() as it:
        return it.connect_ex(("127.0.0.1", port)) == 0


def by_http1(promises, way, url, trust, app):
    def call(at="", **options):
        return connect(
            url + at, ssl=trust, proxy=None, max_size=None, open_timeout=WAIT, close_timeout=WAIT,
            **options)

    with promises.that(f"{way}: text, binary and 1 MB come back as they went"), call() as ws:
        for message in ("wörd", b"\x00\xff", "", BIG, "x" * len(BIG)):
            ws.send(message)
            true(ws.recv(WAIT) == message, f"another message for {len(message)} bytes")
    with promises.that(f"{way}: parts of a message stay parts, both ways"), call() as ws:
        ws.send("take parts")
        ws.send(iter(["a", "bc", "d"]))
        # The last frame of a message in parts is empty.
        same(json.loads(ws.recv(WAIT)), ["a", "bc", "d", ""])
        ws.send("send parts")
        same(list(ws.recv_streaming()), ["one ", "two ", "three", ""])
    with promises.that(f"{way}: pings get their pongs, both ways"), call() as ws:
        true(ws.ping().wait(WAIT), "no pong from the server")
        ws.send("ping me")
        same(ws.recv(WAIT), "pong")
    with promises.that(f"{way}: the client's close code and reason reach the server"):
        with call() as ws:
            ws.close(4002, "bye")
            same((ws.close_code, ws.close_reason), (4002, "bye"))
        eventually(lambda: (4002, "bye") in app.closes, 2, f"the server saw {app.closes[-1:]}")
        app.closes.clear()
    with promises.that(f"{way}: the server's close code and reason reach the client"), call() as ws:
        ws.send("close")
        with_error(lambda: ws.recv(WAIT))
        same((ws.close_code, ws.close_reason), (4001, "enough"))
    with promises.that(f"{way}: the subprotocol is agreed on end to end"):
        with call(subprotocols=["other", "chat"]) as ws:
            same(ws.subprotocol, "chat")
    with promises.that(f"{way}: a server that says no is heard"):
        error = with_error(lambda: call("/forbidden"))
        answer = getattr(error, "response", None)
        true(answer, f"{type(error).__name__}: {error}")
        same((answer.status_code, answer.body), (403, b"not here\n"))
    with promises.that(f"{way}: a client that is cut off is gone for the server too"), call() as ws:
        ws.send("who")
        ws.recv(WAIT)
        app.closes.clear()
        ws.socket.shutdown(socket.SHUT_RDWR)
        eventually(lambda: (1006, "") in app.closes, 2, "the server still has it")
    with promises.that(f"{way}: a server that breaks off is gone for the client too"), call() as ws:
        ws.send("break")
        with_error(lambda: ws.recv(WAIT))
        same(ws.close_code, 1006)


def with_error(call):
    try:
        return AssertionError(f"no error but {call()!r}")
    except Exception as error:
        return error


def by_http2(promises, way, where, path, app):
    client = H2(*where)
    with promises.that(f"{way}: Flipgate's SETTINGS say that it takes WebSockets"):
        same(client.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL], 1)
    with promises.that(f"{way}: CONNECT with :protocol websocket is answered by 200 without a key"):
        ws = client.open(path, ("sec-websocket-protocol", "other, chat"))
        same((ws.reset, ws.head.get(":status")), (None, "200"))
        same(ws.head.get("sec-websocket-protocol"), "chat")
        odd = {"sec-websocket-accept", "connection", "upgrade", "transfer-encoding"}
        same(odd & set(ws.head), set())
    with promises.that(f"{way}: the endpoint gets a good handshake"):
        head = [(name.lower(), value) for name, value in json.loads(ws.ask("head"))]
        names = [it[0] for it in head]
        same([names.count(it) for it in ("host", "upgrade", "sec-websocket-key")], [1, 1, 1])
        same(dict(head)["x-forwarded-proto"], client.scheme)
    with promises.that(f"{way}: text, binary and 1 MB come back as they went"):
        for message in ("wörd", b"\x00\xff", "", BIG, "x" * len(BIG)):
            true(ws.ask(message) == message, f"another message for {len(message)} bytes")
    with promises.that(f"{way}: pings get their pongs, both ways"):
        ws.protocol.send_ping(b"mine")
        ws.flush()
        same(bytes(ws.frame(Opcode.PONG).data), b"mine")
        same(ws.ask("ping me"), "pong")
    with promises.that(f"{way}: requests and WebSockets share a connection"):
        other = client.open(path)
        same(client.get(path), ("200", b"blue"))
        same([other.ask("a"), ws.ask("b"), other.ask("c")], ["a", "b", "c"])
        other.close()
    with promises.that(f"{way}: a close from the client reaches the server, and ends the stream"):
        app.closes.clear()
        same(ws.close(4002, "bye"), 4002)
        eventually(lambda: (4002, "bye") in app.closes, 2, f"the server saw {app.closes}")
    with promises.that(f"{way}: a close from the server reaches the client, and ends the stream"):
        ws = client.open(path)
        ws.say("close")
        same(struct.unpack("!H", ws.frame(Opcode.CLOSE).data[:2])[0], 4001)
        client.wait_for(h2.events.StreamEnded, ws.stream)
        ws.end()
    with promises.that(f"{way}: the client's end of the stream is the end for the server"):
        ws = client.open(path)
        same(ws.ask("who"), "blue")
        app.closes.clear()
        ws.end()
        eventually(lambda: (1006, "") in app.closes, 2, "the server still has it")
        kinds = (h2.events.StreamEnded, h2.events.StreamReset)
        client.wait_for(kinds, ws.stream)
    with promises.that(f"{way}: a reset from the client closes the endpoint's connection"):
        ws = client.open(path)
        same(ws.ask("who"), "blue")
        app.closes.clear()
        client.h2.reset_stream(ws.stream, ErrorCodes.CANCEL)
        client.flush()
        eventually(lambda: (1006, "") in app.closes, 2, "the server still has it")
    with promises.that(f"{way}: a server that breaks off is gone for the client too"):
        ws = client.open(path)
        ws.say("break")
        kinds = (h2.events.StreamEnded, h2.events.StreamReset)
        client.wait_for(kinds, ws.stream)
    with promises.that(f"{way}: a server that says no is heard"):
        ws = client.open(path + "/forbidden")
        same((ws.reset, ws.head.get(":status")), (None, "403"))
        same(client.wait_for(h2.events.DataReceived, ws.stream).data, b"not here\n")
    with promises.that(f"{way}: after all of that the connection is as good as new"):
        same(client.get(path), ("200", b"blue"))
    with promises.that(f"{way}: a client that is cut off is gone for the server too"):
        tunnels = [client.open(path) for _ in range(3)]
        same([it.ask("who") for it in tunnels], ["blue"] * 3)
        app.closes.clear()
        client.close()
        eventually(lambda: app.closes == [(1006, "")] * 3, 2, lambda: f"the server: {app.closes}")


def connect_of_others(promises, where):
    client = H2(*where)
    with promises.that("CONNECT for another :protocol is refused, and the connection goes on"):
        ws = client.open("/plain", protocol="connect-udp")
        true(ws.reset is not None or ws.head[":status"] in ("400", "501"), f"{ws.head}")
        same(client.get("/plain"), ("200", b"blue"))
    with promises.that("a plain CONNECT is refused with 405, and the connection goes on"):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", "localhost:80")])
        client.flush()
        kinds = (h2.events.ResponseReceived, h2.events.StreamReset)
        event = client.wait_for(kinds, stream)
        same(dict(getattr(event, "headers", {})).get(":status"), "405")
        same(client.get("/plain"), ("200", b"blue"))
    client.close()


def flip(promises, flipgate, service, url, trust, where):
    path = f"/{service}"
    client = H2(*where)
    with connect(url, ssl=trust, proxy=None) as old:
        stream = client.open(path)
        with promises.that(f"{path}: before a flip WebSockets are on blue"):
            same([said(old, "who"), stream.ask("who")], ["blue", "blue"])
        flipgate.promote(**{service: "green"})
        with promises.that(f"{path}: open WebSockets stay on blue"):
            same([said(old, "who"), stream.ask("who")], ["blue", "blue"])
        with promises.that(f"{path}: new ones are on green, also on the same connection"):
            with connect(url, ssl=trust, proxy=None) as new:
                same(said(new, "who"), "green")
            new = client.open(path)
            same(new.ask("who"), "green")
            new.close()
            same(client.get(path), ("200", b"green"))
        with promises.that(f"{path}: the drain counts them as tunnels"):
            drain = flipgate.drain(service)
            same((drain["color"], drain["drained"]), ("blue", False))
            same(drain["kinds"], {"request": 0, "tunnel": 2})
        with promises.that(f"{path}: the one ends, the other goes on and holds up the drain"):
            stream.close()
            eventually(lambda: flipgate.drain(service)["in_flight"] == 1, 3, "it still counts two")
            same(said(old, "still here"), "still here")
            same(flipgate.drain(service)["drained"], False)
    with promises.that(f"{path}: when the last has ended, blue is drained"):
        same(flipgate.drain(service, wait="3s")["drained"], True)
    client.close()


def said(ws, message):
    ws.send(message)
    return ws.recv(WAIT)


if __name__ == "__main__":
    program(main)
