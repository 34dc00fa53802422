"""gRPC through Flipgate, with grpcio at both ends: every kind of call, what goes with a call, how
calls end, and what a flip does to them. Needs grpcio and httpx[http2].
"""

import queue
import threading
import time
from concurrent import futures

import grpc
import httpx

from sandbox import eventually, free_port, program, same, true

BIG = bytes(range(256)) * (5 * 1024 * 1024 // 256)
OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
WAIT = 5  # seconds that a call may take


# --- The application -----------------------------------------------------------------------------


class App(grpc.GenericRpcHandler):
    """Answers every service name. Messages are bytes; answers begin with the color."""

    def __init__(self, color):
        self.color = color.encode()
        self.metadata = []
        self.time_left = None
        self.waits = 0
        self.given_up = threading.Event()

    def service(self, details):
        method = details.method.rsplit("/", 1)[1]
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
        }
        return kinds.get(method)

    def unary(self, message, context):
        self.metadata = list(context.invocation_metadata())
        context.send_initial_metadata([("x-early", "1"), ("x-early-bin", b"\x00\xff")])
        context.set_trailing_metadata([("x-late", "2"), ("x-late-bin", b"\x00\xfe")])
        return self.color + b" " + message

    def count(self, message, context):
        for number in range(int(message)):
            yield self.color + b" %d" % number

    def sum(self, messages, context):
        return self.color + b" %d" % sum(int(it) for it in messages)

    def chat(self, messages, context):
        for message in messages:
            yield self.color + b" " + message

    def fail(self, message, context):
        context.set_trailing_metadata([("grpc-status-details-bin", b"\x08\x05details")])
        code = next(it for it in grpc.StatusCode if it.value[0] == int(message))
        context.abort(code, "wörds: 100 % of\nthem")

    def fail_late(self, message, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "late")

    def wait(self, message, context):
        self.given_up.clear()
        self.time_left = context.time_remaining()
        ended = threading.Event()
        context.add_callback(ended.set)
        self.waits += 1
        if ended.wait(10):
            self.given_up.set()
        return b""


def serve(sandbox, app, credentials=None, options=()):
    server = grpc.server(futures.ThreadPoolExecutor(32), options=OPTIONS + list(options))
    server.add_generic_rpc_handlers((app,))
    if credentials:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sandbox.ends.callback(server.stop, None)
    return port


class Calls:
    """The calls of one service on one channel."""

    def __init__(self, channel, service):
        of = f"/{service}/"
        self.unary = channel.unary_unary(of + "Unary")
        self.count = channel.unary_stream(of + "Count")
        self.sum = channel.stream_unary(of + "Sum")
        self.chat = channel.stream_stream(of + "Chat")
        self.fail = channel.unary_unary(of + "Fail")
        self.fail_late = channel.unary_stream(of + "FailLate")
        self.wait = channel.unary_unary(of + "Wait")
        self.missing = channel.unary_unary(of + "Missing")


def error_of(call):
    try:
        return f"no error but {call()!r}"
    except grpc.RpcError as error:
        return error


# --- What is promised ----------------------------------------------------------------------------

CONFIG = """
[[listener]]
listen = "127.0.0.1:0"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"

[service.clear]
path  = "/clear.App"
blue  = {{ endpoints = ["127.0.0.1:{clear_blue}"], protocol = "h2" }}
green = {{ endpoints = ["127.0.0.1:{clear_green}"], protocol = "h2" }}

[service.tls]
path  = "/tls.App"
blue  = {{ endpoints = ["https://127.0.0.1:{tls_blue}"], tls.ca = "{cert}" }}
green = {{ endpoints = ["https://localhost:{tls_green}"], tls.ca = "{cert}" }}

[service.aging]
path = "/aging.App"
blue = {{ endpoints = ["127.0.0.1:{aging}"], protocol = "h2" }}

[service.empty]
path  = "/empty.App"
green = {{ endpoints = ["127.0.0.1:{clear_green}"], protocol = "h2" }}

[service.refused]
path = "/refused.App"
blue = {{ endpoints = ["127.0.0.1:{closed}"], protocol = "h2" }}

[service.small]
path = "/small.App"
max_body = "1KiB"
blue = {{ endpoints = ["127.0.0.1:{clear_blue}"], protocol = "h2" }}
"""


def main(sandbox, promises):
    cert, key = sandbox.certificate("sandbox")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    aging = [("grpc.max_connection_age_ms", 200), ("grpc.max_connection_age_grace_ms", 5000)]
    apps = {color: App(color) for color in ("blue", "green")}
    ports = {f"clear_{it}": serve(sandbox, app) for it, app in apps.items()}
    ports |= {f"tls_{it}": serve(sandbox, app, credentials) for it, app in apps.items()}
    ports["aging"] = serve(sandbox, apps["blue"], options=aging)
    flipgate = sandbox.flipgate(CONFIG.format(cert=cert, key=key, closed=free_port(), **ports))

    trust = grpc.ssl_channel_credentials(cert.read_bytes())
    tls, clear = (f"127.0.0.1:{it}" for it in flipgate.ports)
    secure = grpc.secure_channel(tls, trust, options=OPTIONS)
    open_ = grpc.insecure_channel(clear, options=OPTIONS)
    sandbox.ends.callback(secure.close)
    sandbox.ends.callback(open_.close)

    for way_in, channel in (("TLS", secure), ("the clear", open_)):
        for way_on, service in (("h2 in the clear", "clear.App"), ("https", "tls.App")):
            way = f"in by {way_in}, on by {way_on}"
            calls = Calls(channel, service)
            kinds(promises, way, calls)
            company(promises, way, calls, apps["blue"])
            ends(promises, way, calls, apps["blue"])
    for channel in (secure, open_):
        way = "TLS" if channel is secure else "the clear"
        errors(promises, way, channel)
        preview(promises, way, Calls(channel, "clear.App"))
    public(promises, flipgate.ports, cert)
    for channel, service in ((secure, "clear"), (open_, "tls")):
        flip(promises, flipgate, channel, service)
    flips_under_load(promises, flipgate, secure)
    old_age(promises, Calls(secure, "aging.App"))
    with promises.that("in the end no request is in flight, by Flipgate's own count"):
        eventually(lambda: is_empty(flipgate.status()), 3, "a request is left")


def kinds(promises, way, calls):
    with promises.that(f"{way}: a unary call is answered"):
        same(calls.unary(b"hello", timeout=WAIT), b"blue hello")
    with promises.that(f"{way}: an empty message is a message"):
        same(calls.unary(b"", timeout=WAIT), b"blue ")
    with promises.that(f"{way}: a stream of answers comes whole and in order"):
        seen = list(calls.count(b"500", timeout=WAIT))
        same(seen, [b"blue %d" % it for it in range(500)])
    with promises.that(f"{way}: a stream of requests goes whole"):
        seen = calls.sum((b"%d" % it for it in range(500)), timeout=WAIT)
        same(seen, b"blue %d" % sum(range(500)))
    with promises.that(f"{way}: both streams at once, each answer before the next request"):
        talk = Talk(calls)
        for number in range(50):
            same(talk.say(b"%d" % number), b"blue %d" % number)
        same(talk.end(), grpc.StatusCode.OK)
    with promises.that(f"{way}: 5 MB go and come byte for byte"):
        true(calls.unary(BIG, timeout=WAIT) == b"blue " + BIG, "other bytes")
    with promises.that(f"{way}: a compressed message is a message"):
        same(calls.unary(b"z" * 9999, timeout=WAIT, compression=grpc.Compression.Gzip),
             b"blue " + b"z" * 9999)


def company(promises, way, calls, app):
    sent = [("x-mine", "a"), ("x-mine", "b"), ("x-mine-bin", b"\x00\x01\xff")]
    answer, call = calls.unary.with_call(b"", metadata=sent, timeout=WAIT)
    with promises.that(f"{way}: metadata of the client reaches the server"):
        same([it for it in app.metadata if it[0].startswith("x-mine")], sent)
    with promises.that(f"{way}: nothing of HTTP/1 reaches the server"):
        odd = {"transfer-encoding", "connection", "upgrade", "host", "keep-alive"}
        same([it for it in app.metadata if it[0] in odd], [])
    with promises.that(f"{way}: metadata of the server reaches the client, early and late"):
        same([it for it in call.initial_metadata() if it[0].startswith("x-early")],
             [("x-early", "1"), ("x-early-bin", b"\x00\xff")])
        same([it for it in call.trailing_metadata() if it[0].startswith("x-late")],
             [("x-late", "2"), ("x-late-bin", b"\x00\xfe")])
    with promises.that(f"{way}: an internal client gets the color"):
        same(dict(call.initial_metadata()).get("flipgate-color"), "blue")


def ends(promises, way, calls, app):
    with promises.that(f"{way}: every status comes with its words and details"):
        for code in grpc.StatusCode:
            if code is not grpc.StatusCode.OK:
                error = error_of(lambda: calls.fail(b"%d" % code.value[0], timeout=WAIT))
                same((error.code(), error.details()), (code, "wörds: 100 % of\nthem"))
                details = dict(error.trailing_metadata()).get("grpc-status-details-bin")
                same(details, b"\x08\x05details")
    with promises.that(f"{way}: an error behind messages comes behind them"):
        call, seen = calls.fail_late(b"", timeout=WAIT), []
        error = error_of(lambda: [seen.append(it) for it in call])
        same((seen, error.code(), error.details()),
             ([b"one", b"two"], grpc.StatusCode.DATA_LOSS, "late"))
    with promises.that(f"{way}: a method that the server does not have is its own UNIMPLEMENTED"):
        error = error_of(lambda: calls.missing(b"", timeout=WAIT))
        same((error.code(), error.details()), (grpc.StatusCode.UNIMPLEMENTED, "Method not found!"))
    with promises.that(f"{way}: the server knows the deadline, and that it was exceeded"):
        error = error_of(lambda: calls.wait(b"", timeout=0.3))
        same(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        true(app.time_left is not None and app.time_left <= 0.31, f"time left: {app.time_left}")
        true(app.given_up.wait(2), "the server goes on")
    with promises.that(f"{way}: the server knows that the client has cancelled"):
        before = app.waits
        call = calls.wait.future(b"", timeout=20)
        eventually(lambda: app.waits > before, 3, "the call does not arrive")
        call.cancel()
        true(app.given_up.wait(2), "the server goes on")


def errors(promises, way, channel):
    cases = [
        ("no endpoint", "empty.App", b"", grpc.StatusCode.UNAVAILABLE),
        ("a connection refused", "refused.App", b"", grpc.StatusCode.UNAVAILABLE),
        ("no route", "nowhere.App", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("a body too large", "small.App", b"x" * 4096, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ]
    for what, service, message, code in cases:
        with promises.that(f"in by {way}: {what} is {code.name}, and said to be Flipgate's"):
            error = error_of(lambda: Calls(channel, service).unary(message, timeout=WAIT))
            same(error.code(), code)
            true((error.details() or "").startswith("flipgate: "), f"details: {error.details()}")
            fields = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
            true("proxy-status" in fields, f"no proxy-status: {fields}")
    with promises.that(f"in by {way}: an error of one call leaves the others of its channel alone"):
        same(Calls(channel, "clear.App").unary(b"", timeout=WAIT), b"blue ")


def preview(promises, way, calls):
    metadata = [("flipgate-preview", "green")]
    with promises.that(f"in by {way}: an internal client that asks for green gets green"):
        same(calls.unary(b"", metadata=metadata, timeout=WAIT), b"green ")
    with promises.that(f"in by {way}: a preview that is not possible is UNAVAILABLE, not the other color"):
        metadata = [("flipgate-preview", "purple")]
        error = error_of(lambda: calls.unary(b"", metadata=metadata, timeout=WAIT))
        same(error.code(), grpc.StatusCode.UNAVAILABLE)


def public(promises, ports, cert):
    """A client with an address of our choice: grpcio cannot choose."""
    fields = {"content-type": "application/grpc", "te": "trailers", "flipgate-preview": "green"}
    for url in (f"https://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"):
        for address, color in (("127.0.0.1", b"green "), ("127.0.0.2", b"blue ")):
            with promises.that(f"{url[:5]} from {address} that asks for green: {color.decode()}"):
                way = httpx.HTTPTransport(
                    verify=str(cert), http1=False, http2=True, local_address=address)
                with httpx.Client(transport=way, timeout=WAIT) as client:
                    answer = client.post(f"{url}/clear.App/Unary", headers=fields, content=bytes(5))
                same((answer.status_code, answer.content[5:]), (200, color))
                same("flipgate-color" in answer.headers, address == "127.0.0.1")


class Talk:
    """A bidirectional stream that is held open."""

    def __init__(self, calls):
        self.words = queue.Queue()
        self.call = calls.chat(iter(self.words.get, None), timeout=20)

    def say(self, word):
        self.words.put(word)
        return next(self.call)

    def end(self):
        self.words.put(None)
        same(list(self.call), [])
        return self.call.code()


def flip(promises, flipgate, channel, service):
    calls = Calls(channel, f"{service}.App")
    talk = Talk(calls)
    same(talk.say(b"before"), b"blue before")
    flipgate.promote(**{service: "green"})
    with promises.that(f"{service}: after a flip, new calls on the same channel go to green"):
        same({calls.unary(b"", timeout=WAIT) for _ in range(20)}, {b"green "})
        same(Talk(calls).say(b"new"), b"green new")
    with promises.that(f"{service}: an open stream stays on blue, both ways"):
        same([talk.say(b"%d" % it) for it in range(20)], [b"blue %d" % it for it in range(20)])
    with promises.that(f"{service}: the drain shows the open stream"):
        drain = flipgate.drain(service)
        same((drain["color"], drain["in_flight"], drain["drained"]), ("blue", 1, False))
        same(drain["kinds"], {"request": 1, "tunnel": 0})
    with promises.that(f"{service}: the stream comes to its end on blue, and blue is drained then"):
        same(talk.end(), grpc.StatusCode.OK)
        drain = flipgate.drain(service, wait="3s")
        same((drain["in_flight"], drain["drained"]), (0, True))
    flipgate.promote(**{service: "blue"})


def flips_under_load(promises, flipgate, channel):
    calls, failed, stop = Calls(channel, "clear.App"), [], threading.Event()
    counts = [0, 0]

    def load(number):
        while not stop.is_set():
            try:
                calls.unary(b"", timeout=WAIT)
                list(calls.count(b"3", timeout=WAIT))
                counts[number] += 2
            except grpc.RpcError as error:
                failed.append(f"{error.code()} {error.details()}")

    with promises.that("20 flips under load fail no call"):
        threads = [threading.Thread(target=load, args=(it,)) for it in range(2)]
        [it.start() for it in threads]
        for number in range(20):
            flipgate.promote(clear=("green", "blue")[number % 2])
            time.sleep(0.02)  # what the load does meanwhile is the point
        stop.set()
        [it.join(WAIT) for it in threads]
        same(failed[:3], [])
        true(sum(counts) > 40, f"only {sum(counts)} calls")


def old_age(promises, calls):
    """The server ends each connection after 0.2 s, with GOAWAY and time for what is under way."""
    with promises.that("a server that lets its connections go by age fails no call"):
        deadline, count = time.monotonic() + 1.5, 0
        while time.monotonic() < deadline:
            same(calls.unary(b"", timeout=WAIT), b"blue ")
            count += 1
        true(count > 50, f"only {count} calls")
    with promises.that("a stream goes on when the connection is let go by age"):
        talk = Talk(calls)
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            same(talk.say(b"still"), b"blue still")
        same(talk.end(), grpc.StatusCode.OK)


def is_empty(status):
    return not any(
        pool["in_flight"] for it in status["services"].values() for pool in it["pools"].values())


if __name__ == "__main__":
    program(main)
