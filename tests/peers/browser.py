"""Chromium through Flipgate: a page, a fetch and a WebSocket, by TLS and HTTP/2. Needs chromium.

The page asks for a picture that is given when its script has come to its end, so that it counts as
loaded then, and Chromium prints what the script has written.
"""

import asyncio
import base64
import hashlib
import html
import json
import re
import subprocess
import threading

from sandbox import end, program, same, true

PAGE = """<!DOCTYPE html>
<title>peers</title>
<p id="seen">nothing</p>
<img src="/finished" alt="">
<script>
const seen = {};
const until = (target, name) => new Promise((kept, broken) => {
  target.addEventListener(name, kept, { once: true });
  target.addEventListener("error", () => broken(new Error("it failed: " + name)), { once: true });
});
async function look() {
  seen.page = performance.getEntriesByType("navigation")[0].nextHopProtocol;
  seen.fetched = await (await fetch("/color")).text();
  const sent = await fetch("/echo", { method: "POST", body: "x".repeat(300000) });
  seen.echoed = (await sent.text()).length;
  seen.fetch = performance.getEntriesByName(location.origin + "/color")[0].nextHopProtocol;
  const socket = new WebSocket("wss://" + location.host + "/socket");
  await until(socket, "open");
  const said = async word => (socket.send(word), (await until(socket, "message")).data);
  seen.first = await said("who");
  await fetch("/flip");
  seen.flipped = await (await fetch("/color")).text();
  seen.still = await said("who");
  seen.large = (await said("y".repeat(50000))).length;
  const closed = until(socket, "close");
  socket.send("close");
  const event = await closed;
  seen.closed = [event.code, event.reason, event.wasClean];
}
look().catch(error => seen.error = String(error)).finally(() => {
  document.getElementById("seen").textContent = JSON.stringify(seen);
  fetch("/done");
});
</script>
"""


# --- The application -----------------------------------------------------------------------------


class App:
    """HTTP/1.1 and the little of WebSocket that the page needs."""

    def __init__(self, color, flip):
        self.color, self.flip = color, flip

    def start(self, loop):
        serving = asyncio.start_server(self.serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(serving, loop).result(5)
        return server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ", 2)[1]
                fields = dict(re.findall(r"\r\n([^:\r]+): *([^\r]*)", head.lower()))
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                if path == "/socket":
                    key = re.search(r"(?i)sec-websocket-key: *(\S+)", head)[1]
                    await self.talk(key, reader, writer)
                    break
                kind, answer = await self.answer(path, body)
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\n"
                    f"Content-Length: {len(answer)}\r\n\r\n".encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, path, body):
        match path:
            case "/":
                return "text/html", PAGE.encode()
            case "/echo":
                return "text/plain", body
            case "/flip":
                await asyncio.to_thread(self.flip)
                return "text/plain", b"flipped"
            case "/done":
                DONE.set()
            case "/finished":
                await asyncio.to_thread(DONE.wait, 15)
                return "image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"/>'
        return "text/plain", self.color.encode()

    async def talk(self, key, reader, writer):
        """RFC 6455: repeats what it hears, but for two words."""
        accept = base64.b64encode(hashlib.sha1(f"{key}{GUID}".encode()).digest()).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        while True:
            first, length = await reader.readexactly(2)
            length &= 0x7F
            if length >= 126:
                size = await reader.readexactly(2 if length == 126 else 8)
                length = int.from_bytes(size, "big")
            mask = await reader.readexactly(4)
            data = bytes(it ^ mask[at % 4] for at, it in enumerate(await reader.readexactly(length)))
            if first & 0x0F == CLOSE:
                return
            match data:
                case b"who":
                    writer.write(frame(TEXT, self.color.encode()))
                case b"close":
                    writer.write(frame(CLOSE, (4001).to_bytes(2, "big") + b"enough"))
                case _:
                    writer.write(frame(TEXT, data))


GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, CLOSE = 1, 8
DONE = threading.Event()


def frame(opcode, data):
    size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
    return bytes([0x80 | opcode]) + size + data


# --- What is promised ----------------------------------------------------------------------------

CONFIG = """
[[listener]]
listen = "127.0.0.1:0"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[service.web]
blue  = {{ endpoints = ["127.0.0.1:{blue}"] }}
green = {{ endpoints = ["127.0.0.1:{green}"] }}
"""

OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--ignore-certificate-errors", "--no-proxy-server", "--dump-dom",
]


def main(sandbox, promises):
    cert, key = sandbox.certificate("sandbox")
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    ports = {it: App(it, lambda: flipgate.promote(web="green")).start(loop)
             for it in ("blue", "green")}
    flipgate = sandbox.flipgate(CONFIG.format(cert=cert, key=key, **ports))
    origin = f"https://localhost:{flipgate.ports[0]}"
    seen, log = browse(sandbox, origin)

    with promises.that("the page comes by HTTP/2, and so does what it fetches"):
        same((seen.get("page"), seen.get("fetch")), ("h2", "h2"))
    with promises.that("a fetch gets the color, and an upload of 300 KB comes back"):
        same((seen.get("fetched"), seen.get("echoed")), ("blue", 300_000))
    with promises.that("a WebSocket opens, and is on blue"):
        same((seen.get("first"), seen.get("error")), ("blue", None))
    with promises.that("after a flip the next fetch of the page is on green"):
        same(seen.get("flipped"), "green")
    with promises.that("its WebSocket stays on blue, also for 50 KB"):
        same((seen.get("still"), seen.get("large")), ("blue", 50_000))
    with promises.that("the server's close arrives with code and reason, and is clean"):
        same(seen.get("closed"), [4001, "enough", True])
    with promises.that("Chromium's own log says that the WebSocket went over HTTP/2"):
        asked = [it for it in log.splitlines() if ":protocol: websocket" in it]
        true(asked, "no head with :protocol: websocket")
        for part in ("HTTP2_SESSION_SEND_HEADERS", ":method: CONNECT", ":path: /socket"):
            true(any(part in it for it in asked), f"no {part} in {asked}")
    with promises.that("no stream and no connection was broken off, by Chromium's own log"):
        same(re.findall(r"ERR_HTTP2_\w+|ERR_CONNECTION_RESET", log)[:3], [])
    with promises.that("when Chromium has gone, blue is drained"):
        same(flipgate.drain("web", wait="3s")["drained"], True)


def browse(sandbox, origin):
    """What the page has seen, and Chromium's log of what it did."""
    log = sandbox.folder / "net-log.json"
    command = ["chromium", *OPTIONS, f"--user-data-dir={sandbox.folder}/profile"]
    command += [f"--log-net-log={log}", "--net-log-capture-mode=IncludeSensitive", origin + "/"]
    process = sandbox.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = process.communicate(timeout=20)[0]
    finally:
        end(process)
    found = re.search(r'<p id="seen">(.*?)</p>', said)
    true(found, f"Chromium shows something else: {said[:300]}")
    true(found[1] != "nothing", "the page's script did not come to its end")
    names = {value: name for name, value in constants(log).items()}
    return json.loads(html.unescape(found[1])), readable(log, names)


def constants(log):
    return json.loads(log.read_text())["constants"]["logEventTypes"]


def readable(log, names):
    """The events, one a line, with their names."""
    events = json.loads(log.read_text())["events"]
    lines = ({"what": names[it["type"]], **it.get("params", {})} for it in events)
    return "\n".join(json.dumps(it) for it in lines)


if __name__ == "__main__":
    program(main)
