"""What an HTTP client can see of Flipgate, with curl: versions, hosts and certificates, redirects,
clients' certificates, the PROXY protocol, interim answers, bodies, and certificates that change.
Needs curl and openssl, and haproxy for endpoints that take the PROXY protocol; without it those are
left out.
"""

import hashlib
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading

from sandbox import eventually, free_port, program, same, true

BIG = bytes(range(251)) * (10 * 1024 * 1024 // 251)
PUBLIC = "127.0.0.2"


# --- The application -----------------------------------------------------------------------------


class App(http.server.BaseHTTPRequestHandler):
    """Tells what it was asked; /big gives 10 MB, /early has something to say before its answer, and
    /hasty says no before it takes the body."""

    protocol_version = "HTTP/1.1"
    color = ""

    def answer(self):
        if self.path == "/hasty":
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n")
            self.take_body()
            return
        body = self.take_body()
        if self.path == "/early":
            self.wfile.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
        told = {
            "color": self.color,
            "method": self.command,
            "fields": [[name.lower(), value] for name, value in self.headers.items()],
            "length": len(body),
            "digest": hashlib.sha256(body).hexdigest(),
        }
        answer = BIG if self.path == "/big" else json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = answer

    def take_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, *_):
        pass


def start_app(sandbox, name):
    app = type(name, (App,), {"color": name})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), app)
    server.daemon_threads = True
    # An upload that Flipgate cuts off is no news.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sandbox.ends.callback(server.shutdown)
    return server.server_port


# --- curl ----------------------------------------------------------------------------------------


class Curl:
    """Calls curl, and takes its answers apart."""

    def __init__(self, sandbox, cert):
        self.folder = sandbox.folder
        self.trust = ["--cacert", str(cert)]

    def __call__(self, *options, content=None):
        heads, body = self.folder / "heads", self.folder / "answer"
        for file in (heads, body):
            file.unlink(missing_ok=True)
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", "8", "-D", heads, "-o", body]
        command += ["-w", "%{http_version}", *self.trust, *options]
        done = subprocess.run(command, input=content, capture_output=True, timeout=10)
        return Answer(done, heads, body)


class Answer:
    def __init__(self, done, heads, body):
        self.exit, self.error = done.returncode, done.stderr.decode().strip()
        self.version = done.stdout.decode()
        text = heads.read_bytes().decode() if heads.exists() else ""
        self.heads = [it.splitlines() for it in text.split("\r\n\r\n") if it]
        self.codes = [int(it[0].split()[1]) for it in self.heads]
        self.code = self.codes[-1] if self.codes else None
        self.body = body.read_bytes() if body.exists() else b""

    def field(self, name, head=-1):
        lines = [it.partition(": ") for it in self.heads[head][1:]] if self.heads else []
        found = [value for key, _, value in lines if key.lower() == name]
        return ", ".join(found) if found else None

    def told(self):
        """What the application tells of the request."""
        true((self.exit, self.code) == (0, 200), str(self))
        return json.loads(self.body)

    def sent(self, name):
        """The values of a field that the application got."""
        return [value for key, value in self.told()["fields"] if key == name]

    def __str__(self):
        return f"{self.code}, curl {self.exit}: {self.error}"


# --- What is promised ----------------------------------------------------------------------------

CONFIG = """
[[listener]]
listen = "127.0.0.1:0"
[listener.tls]
hsts = "max-age=31536000"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"
[[listener.tls.certificates]]
cert = "{two[0]}"
key  = "{two[1]}"

[[listener]]
listen = "127.0.0.1:0"

[[listener]]
listen = "127.0.0.1:0"
protocols = ["http1"]
[listener.tls]
min_version = "1.3"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:{https}"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"
redirect_to_https = {https}

[[listener]]
listen = "127.0.0.1:0"
redirect_to_https = 443

[[listener]]
listen = "127.0.0.1:0"
[listener.tls.client]
ca = "{ca[0]}"
internal = true
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"
[listener.tls.client]
ca = "{ca[0]}"
required = true
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"
proxy_protocol = {{ from = ["127.0.0.1/32"] }}

[[listener]]
listen = "127.0.0.1:0"
proxy_protocol = {{ from = ["127.0.0.1/32"] }}
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[[listener]]
listen = "127.0.0.1:0"
[[listener.tls.certificates]]
cert = "{changing[0]}"
key  = "{changing[1]}"

[service.web]
blue  = {{ endpoints = ["127.0.0.1:{blue}"] }}
green = {{ endpoints = ["127.0.0.1:{green}"] }}

[service.small]
path  = "/small"
max_body = "64KiB"
blue  = {{ endpoints = ["127.0.0.1:{blue}"] }}

[service.v1]
path = "/v1"
blue = {{ endpoints = ["127.0.0.1:{v1}"], proxy_protocol = "v1" }}

[service.v2]
path = "/v2"
blue = {{ endpoints = ["127.0.0.1:{v2}"], proxy_protocol = "v2" }}

[service.h2v2]
path = "/h2v2"
blue = {{ endpoints = ["127.0.0.1:{h2v2}"], proxy_protocol = "v2", protocol = "h2" }}
"""

LISTENERS = ["tls", "clear", "strict", "https", "redirect", "redirect_443", "optional", "required",
             "proxied", "proxied_tls", "changing"]

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend seen
    bind 127.0.0.1:{v1} accept-proxy
    bind 127.0.0.1:{v2} accept-proxy
    bind 127.0.0.1:{h2v2} accept-proxy proto h2
    http-request return status 200 content-type text/plain lf-string %[src]
"""


def main(sandbox, promises):
    cert, key = sandbox.certificate("sandbox")
    two = sandbox.certificate("two", hosts=["DNS:two.test", "DNS:*.two.test"])
    authority = sandbox.certificate("authority", hosts=())
    changing = sandbox.certificate("changing")
    ports = {color: start_app(sandbox, color) for color in ("blue", "green")}
    ports |= {it: free_port() for it in ("https", "v1", "v2", "h2v2")}
    config = CONFIG.format(cert=cert, key=key, two=two, ca=authority, changing=changing, **ports)
    flipgate = sandbox.flipgate(config)
    at = dict(zip(LISTENERS, flipgate.ports))
    curl = Curl(sandbox, cert)

    versions(promises, curl, at)
    hosts(promises, curl, at, cert, two)
    redirects(promises, curl, at)
    transport_security(promises, curl, at)
    clients(sandbox, promises, curl, at, authority)
    proxy_protocol(promises, curl, at)
    if shutil.which("haproxy"):
        proxy_protocol_onward(sandbox, promises, curl, at, ports)
    else:
        print("left out: the PROXY protocol to endpoints, since haproxy is not there", flush=True)
    interim(promises, curl, at)
    bodies(sandbox, promises, curl, at)
    limits(sandbox, promises, curl, at)
    change(sandbox, promises, flipgate, at["changing"], changing)
    with promises.that("in the end no request is in flight, by Flipgate's own count"):
        eventually(lambda: is_empty(flipgate.status()), 3, "a request is left")


def both(at, path="/"):
    """Over TLS by each version, and in the clear by each."""
    tls, clear = f"https://localhost:{at['tls']}{path}", f"http://localhost:{at['clear']}{path}"
    return [
        ("h2 by TLS", ["--http2", tls]),
        ("http/1.1 by TLS", ["--http1.1", tls]),
        ("h2 in the clear", ["--http2-prior-knowledge", clear]),
        ("http/1.1 in the clear", ["--http1.1", clear]),
    ]


def versions(promises, curl, at):
    for way, options in both(at):
        with promises.that(f"{way} is spoken, and the application told the scheme"):
            answer = curl(*options)
            same(answer.sent("x-forwarded-proto"), ["https" if "TLS" in way else "http"])
            same(answer.version, "2" if way.startswith("h2") else "1.1")
    with promises.that("a client in the clear that asks to upgrade to h2 is answered in 1.1"):
        answer = curl("--http2", f"http://localhost:{at['clear']}/")
        same((answer.codes, answer.version), ([200], "1.1"))
    with promises.that("a listener for http1 agrees on nothing else"):
        answer = curl("--http2", f"https://localhost:{at['strict']}/")
        same((answer.code, answer.version), (200, "1.1"))
    with promises.that("TLS 1.2 is spoken, but not where 1.3 is the least"):
        same(curl("--tls-max", "1.2", f"https://localhost:{at['tls']}/").code, 200)
        answer = curl("--tls-max", "1.2", f"https://localhost:{at['strict']}/")
        same((answer.exit, answer.code), (35, None))
    with promises.that("http:// to a port of TLS is refused with the reason"):
        answer = curl(f"http://localhost:{at['tls']}/")
        same((answer.code, b"https" in answer.body), (400, True))


def hosts(promises, curl, at, cert, two):
    port = at["tls"]
    to = ["--resolve", f"*:{port}:127.0.0.1"]
    for version in ("--http2", "--http1.1"):
        way = version[2:]
        with promises.that(f"{way}: a name of the second certificate gets the second certificate"):
            for name in ("two.test", "a.two.test"):
                url = f"https://{name}:{port}/"
                same(curl(version, *to, "--cacert", str(two[0]), url).code, 200)
        with promises.that(f"{way}: a name of no certificate is 421, and said to be Flipgate's"):
            answer = curl(version, "-k", *to, f"https://other.test:{port}/")
            same(answer.code, 421)
            true("flipgate; error=" in (answer.field("proxy-status") or ""), "no Proxy-Status")
        with promises.that(f"{way}: a name of another certificate than the connection's is 421"):
            url = f"https://localhost:{port}/"
            same(curl(version, "-H", "Host: two.test", url).code, 421)
            same(curl(version, "-H", "Host: LOCALHOST", url).code, 200)
        with promises.that(f"{way}: a wildcard is for one label"):
            answer = curl(version, "-k", *to, f"https://a.b.two.test:{port}/")
            same(answer.code, 421)
    with promises.that("without TLS every name is welcome"):
        same(curl("-H", "Host: other.test", f"http://localhost:{at['clear']}/").code, 200)


def redirects(promises, curl, at):
    for version in ("--http1.1", "--http2-prior-knowledge"):
        with promises.that(f"{version[2:]}: a redirecting listener answers 308 to https"):
            answer = curl(version, f"http://localhost:{at['redirect']}/a/b?c=d%20e")
            wanted = f"https://localhost:{at['https']}/a/b?c=d%20e"
            same((answer.code, answer.field("location")), (308, wanted))
            answer = curl(version, "-d", "x", f"http://127.0.0.1:{at['redirect_443']}/?q")
            same((answer.code, answer.field("location")), (308, "https://127.0.0.1/?q"))
    with promises.that("who follows it gets there, with method and body"):
        answer = curl("-L", "-X", "PUT", "-d", "hello", f"http://localhost:{at['redirect']}/a")
        told = answer.told()
        same((answer.codes, told["method"], told["length"]), ([308, 200], "PUT", 5))


def transport_security(promises, curl, at):
    for version in ("--http2", "--http1.1"):
        with promises.that(f"{version[2:]}: HSTS is said by TLS, on every answer"):
            url = f"https://localhost:{at['tls']}/"
            same(curl(version, url).field("strict-transport-security"), "max-age=31536000")
            answer = curl(version, "-H", "Host: two.test", url)
            same(answer.field("strict-transport-security"), "max-age=31536000")
    with promises.that("HSTS is not said in the clear, nor where it is not configured"):
        for url in (f"http://localhost:{at['clear']}/", f"https://localhost:{at['https']}/"):
            same(curl(url).field("strict-transport-security"), None)


def clients(sandbox, promises, curl, at, authority):
    optional, required = (f"https://localhost:{at[it]}/" for it in ("optional", "required"))
    cert, key = sandbox.certificate("alice", ["DNS:alice.test", "URI:spiffe://a/b"], authority)
    foreign = sandbox.certificate("foreign")
    mine = ["--cert", str(cert), "--key", str(key)]
    theirs = ["--cert", str(foreign[0]), "--key", str(foreign[1])]
    forged = ["-H", "X-Forwarded-Client-Cert: Hash=forged"]
    preview, public = ["-H", "Flipgate-Preview: green"], ["--interface", PUBLIC]
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(cert.read_text())).hexdigest()
    for version in ("--http2", "--http1.1"):
        way = version[2:]
        with promises.that(f"{way}: the application gets the identity of a client with a certificate"):
            for url in (optional, required):
                sent = curl(version, *mine, *forged, url).sent("x-forwarded-client-cert")
                true(len(sent) == 1 and f"Hash={digest};" in sent[0], f"sent: {sent}")
                for part in ("CN=alice", 'URI="spiffe://a/b"', 'DNS="alice.test"'):
                    true(part in sent[0], f"no {part} in {sent[0]}")
        with promises.that(f"{way}: where it is optional, a client without a certificate has no identity"):
            answer = curl(version, *forged, optional)
            same(answer.sent("x-forwarded-client-cert"), [])
        with promises.that(f"{way}: where it is required, a client without a certificate is refused"):
            answer = curl(version, required)
            true(answer.exit and answer.code is None, f"{answer}")
        with promises.that(f"{way}: a certificate of another authority is refused"):
            for url in (optional, required):
                answer = curl(version, *theirs, url)
                true(answer.exit and answer.code is None, f"{answer}")
        with promises.that(f"{way}: a client with a certificate is internal where the configuration says so, also from {PUBLIC}"):
            same(curl(version, *mine, *public, *preview, optional).told()["color"], "green")
            same(curl(version, *public, *preview, optional).told()["color"], "blue")
            same(curl(version, *mine, *public, *preview, required).told()["color"], "blue")


def proxy_protocol(promises, curl, at):
    proxied = [("in the clear", [], f"http://localhost:{at['proxied']}/"),
               ("before TLS", ["--http1.1"], f"https://localhost:{at['proxied_tls']}/"),
               ("before TLS and h2", ["--http2"], f"https://localhost:{at['proxied_tls']}/")]
    for way, options, url in proxied:
        with promises.that(f"PROXY {way}: a listed peer's is believed"):
            answer = curl(*options, "--haproxy-protocol", url)
            same(answer.sent("x-forwarded-for"), ["127.0.0.1"])
        with promises.that(f"PROXY {way}: a listed peer without it gets nothing"):
            answer = curl(*options, url)
            true(answer.exit and answer.code in (None, 400), f"{answer}")
        with promises.that(f"PROXY {way}: another peer's is no request"):
            answer = curl(*options, "--interface", PUBLIC, "--haproxy-protocol", url)
            true(answer.code in (None, 400), f"{answer}")
        with promises.that(f"PROXY {way}: another peer without it is served as itself"):
            answer = curl(*options, "--interface", PUBLIC, url)
            same(answer.sent("x-forwarded-for"), [PUBLIC])

    # curl tells its own address; a proxy tells another's.
    v1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 4000 443\r\n"
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 9, 127, 0, 0, 1])
    v2 += struct.pack("!HH", 4000, 443)
    for name, header in (("v1", v1), ("v2", v2)):
        with promises.that(f"PROXY {name}: the client is who it says, and as public as that"):
            told = ask_with(at["proxied"], header)
            same([it[1] for it in told["fields"] if it[0] == "x-forwarded-for"], ["203.0.113.9"])
            same(told["color"], "blue")
    for name, header in (("v1 UNKNOWN", b"PROXY UNKNOWN\r\n"),
                         ("v2 LOCAL", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")):
        with promises.that(f"PROXY {name}: a client without an address in the header is served as the public"):
            same(ask_with(at["proxied"], header)["color"], "blue")


def ask_with(port, header):
    """Asks for green behind a header of the PROXY protocol."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as it:
        ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nFlipgate-Preview: green\r\n\r\n"
        it.sendall(header + ask)
        answer = http.client.HTTPResponse(it)
        answer.begin()
        same(answer.status, 200)
        return json.load(answer)


def proxy_protocol_onward(sandbox, promises, curl, at, ports):
    with (sandbox.folder / "haproxy.log").open("wb") as out:
        file = sandbox.write("haproxy.cfg", HAPROXY.format(**ports))
        sandbox.start(["haproxy", "-db", "-f", file], stdout=out, stderr=out)
    url = f"https://localhost:{at['tls']}"
    eventually(lambda: curl(url + "/v1").code == 200, 20, "haproxy does not start")
    for service in ("v1", "v2", "h2v2"):
        with promises.that(f"PROXY to an endpoint, {service}: it gets the client's address for each request"):
            for address in ("127.0.0.1", PUBLIC, "127.0.0.3", PUBLIC):
                answer = curl("--interface", address, f"{url}/{service}")
                same((answer.code, answer.body.decode()), (200, address))


def interim(promises, curl, at):
    for way, options in both(at, "/early"):
        with promises.that(f"{way}: 103 Early Hints arrive before the answer"):
            answer = curl(*options)
            same(answer.codes, [103, 200])
            same(answer.field("link", head=0), "</a.css>; rel=preload")
            same(answer.field("link"), None)


def bodies(sandbox, promises, curl, at):
    file = sandbox.folder / "big"
    file.write_bytes(BIG)
    digest = hashlib.sha256(BIG).hexdigest()
    for way, options in both(at, "/big"):
        with promises.that(f"{way}: 10 MB come byte for byte"):
            answer = curl(*options)
            true(answer.body == BIG, f"{len(answer.body)} other bytes: {answer}")
    for way, options in both(at, "/up"):
        with promises.that(f"{way}: 10 MB go byte for byte, with their length and without"):
            told = curl(*options, "-T", str(file)).told()
            same((told["length"], told["digest"]), (len(BIG), digest))
            same(dict(told["fields"]).get("content-length"), str(len(BIG)))
            told = curl(*options, "-T", "-", content=BIG).told()
            same((told["length"], told["digest"]), (len(BIG), digest))
    for way, options in both(at, "/hasty"):
        with promises.that(f"{way}: an answer that comes before the body was taken arrives"):
            answer = curl(*options, "-T", str(file))
            true((answer.code, answer.body) == (403, b"no\n"), str(answer))
    with promises.that("many downloads at once share a connection of h2"):
        url = f"https://localhost:{at['tls']}/big"
        names = [sandbox.folder / f"part{it}" for it in range(4)]
        command = ["curl", "-sS", "--http2", "--parallel", "-k", "--max-time", "8"]
        for name in names:
            command += ["-o", name, url]
        subprocess.run(command, check=True, capture_output=True, timeout=10)
        true(all(it.read_bytes() == BIG for it in names), "other bytes")


def limits(sandbox, promises, curl, at):
    for way, options in both(at, "/small"):
        with promises.that(f"{way}: a body up to max_body is taken"):
            same(curl(*options, "--data-binary", "@-", content=b"x" * 65536).told()["length"], 65536)
        # More than a client sends before it has seen an answer.
        large = b"x" * 2_000_000
        with promises.that(f"{way}: a larger one is 413, by its length alone"):
            answer = curl(*options, "--data-binary", "@-", content=large)
            true(answer.code == 413, str(answer))
            same(answer.field("proxy-status"), "flipgate; error=http_request_error")
        with promises.that(f"{way}: a larger one is 413, also when its length is not told"):
            answer = curl(*options, "-T", "-", content=large)
            true(answer.code == 413, str(answer))


def change(sandbox, promises, flipgate, port, pair):
    kept = ssl.create_default_context()
    kept.check_hostname, kept.verify_mode = False, ssl.CERT_NONE
    open_ = http.client.HTTPSConnection("127.0.0.1", port, context=kept, timeout=5)

    def ask():
        open_.request("GET", "/")
        return json.load(open_.getresponse())["color"]

    same(ask(), "blue")
    first = shown(port)
    warned = len(warnings(flipgate))
    new = [it.read_bytes() for it in sandbox.certificate("new")]
    with promises.that("a certificate replaced on disk is shown to new connections soon"):
        replace(pair, new)
        eventually(lambda: shown(port) != first, 8, "it shows the old one")
        same(shown(port), ssl.PEM_cert_to_DER_cert(new[0].decode()))
    with promises.that("a connection that was open meanwhile goes on"):
        same(ask(), "blue")
    with promises.that("a broken certificate is warned of, and the last good one shown"):
        second = shown(port)
        replace(pair, [b"-----BEGIN CERTIFICATE-----\nbroken\n", new[1]])
        eventually(lambda: len(warnings(flipgate)) > warned, 8, "no warning")
        same(shown(port), second)
    with promises.that("so is one that does not fit its key"):
        other = [it.read_bytes() for it in sandbox.certificate("other")]
        warned = len(warnings(flipgate))
        replace(pair, [other[0], new[1]])
        eventually(lambda: len(warnings(flipgate)) > warned, 8, "no warning")
        same(shown(port), second)
    with promises.that("when it is whole again it is shown"):
        replace(pair, other)
        eventually(lambda: shown(port) == ssl.PEM_cert_to_DER_cert(other[0].decode()), 8,
                   "it shows the old one")
        same(ask(), "blue")


def shown(port):
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=5))


def replace(pair, contents):
    """As careful people do it: each file is whole at every moment."""
    for path, content in zip(pair, contents):
        fresh = path.with_suffix(".fresh")
        fresh.write_bytes(content)
        os.replace(fresh, path)


def warnings(flipgate):
    return re.findall(r'"level":"(?:WARN|ERROR)".*(?:\.pem|\.key|certificate)',
                      flipgate.log.read_text())


def is_empty(status):
    return not any(
        pool["in_flight"] for it in status["services"].values() for pool in it["pools"].values())


if __name__ == "__main__":
    program(main)
