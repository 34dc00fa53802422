"""The version signal in Chromium, by TLS: a page of blue is on green after a flip, without a click. Needs chromium.

Chromium is driven over its DevTools protocol: each page is a tab of its own.
"""

import asyncio
import json
import subprocess
import threading
import urllib.request

import websockets.sync.client
from sandbox import end, eventually, program, same, true

# The policy that a careful application has: no inline code.
POLICY = "default-src 'self'; script-src 'self'; connect-src 'self'"

PAGE = """<!DOCTYPE html>
<title>{color}</title>
<script src="/.flipgate/reload.js" {attributes} defer></script>
<form><input id="name" name="name"><button>send</button></form>
"""


class App:
    """Pages that say their color, and count how often they were loaded."""

    def __init__(self, color):
        self.color, self.loads = color, {}

    def start(self, loop):
        serving = asyncio.start_server(self.serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(serving, loop).result(5)
        return server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ", 2)[1]
                self.loads[path] = self.loads.get(path, 0) + 1
                attributes = {
                    "/other": 'data-interval="1" data-version="another"',
                    "/events": "data-events",
                    "/returns": 'data-interval="3600"',
                }.get(path, 'data-interval="1"')
                page = PAGE.format(color=self.color, attributes=attributes).encode()
                writer.write(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nCache-Control: no-store\r\n"
                    f"Content-Security-Policy: {POLICY}\r\n"
                    f"Content-Length: {len(page)}\r\n\r\n".encode() + page)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


CONFIG = """
[[listener]]
listen = "127.0.0.1:0"
[[listener.tls.certificates]]
cert = "{cert}"
key  = "{key}"

[service.web]
blue  = {{ endpoints = ["127.0.0.1:{blue}"] }}
green = {{ endpoints = ["127.0.0.1:{green}"] }}
version_signal = {{ spread = "500ms", header = true }}
"""

OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--ignore-certificate-errors", "--no-proxy-server",
    "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
    "--remote-debugging-port=0", "--remote-allow-origins=*",
]


class Browser:
    """Chromium, driven over its DevTools protocol."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.profile = sandbox.folder / "profile"
        command = ["chromium", *OPTIONS, f"--user-data-dir={self.profile}", "about:blank"]
        self.process = sandbox.start(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.port = eventually(self.find_port, 15, "Chromium opens no port")

    def find_port(self):
        path = self.profile / "DevToolsActivePort"
        return path.exists() and path.read_text().split("\n")[0]

    def open(self, url):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/json/new?{url}", method="PUT")
        with urllib.request.urlopen(request, timeout=5) as response:
            debugger = json.load(response)["webSocketDebuggerUrl"]
        connecting = websockets.sync.client.connect(debugger, max_size=None)
        return Tab(self.sandbox.ends.enter_context(connecting))


class Tab:
    def __init__(self, socket):
        self.socket, self.number = socket, 0
        # All tabs are visible, as windows beside each other.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps(
            {"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=10))
            if answer.get("id") == self.number:
                return answer.get("result", answer.get("error"))

    def run(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return result.get("result", {}).get("value")

    def title(self):
        return self.run("document.title")

    def type(self, text):
        self.run('document.getElementById("name").focus()')
        self.call("Input.insertText", text=text)


def main(sandbox, promises):
    cert, key = sandbox.certificate("sandbox")
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    apps = {it: App(it) for it in ("blue", "green")}
    ports = {color: app.start(loop) for color, app in apps.items()}
    flipgate = sandbox.flipgate(CONFIG.format(cert=cert, key=key, **ports))
    origin = f"https://localhost:{flipgate.ports[0]}"
    browser = Browser(sandbox)

    paths = ("plain", "events", "typed", "focused", "other", "returns")
    tabs = {it: browser.open(f"{origin}/{it}") for it in paths}
    for tab in tabs.values():
        eventually(lambda tab=tab: tab.title() == "blue", 10, "the page does not come")

    with promises.that("a page with an id of its own that never agrees reloads once, and not again"):
        eventually(lambda: apps["blue"].loads.get("/other") == 2, 10, "no reload")
    with promises.that("the script runs under a policy without inline code"):
        same(tabs["plain"].run("document.scripts[0].src.endsWith('/.flipgate/reload.js')"), True)

    tabs["typed"].type("half")
    tabs["typed"].run("document.activeElement.blur()")
    tabs["focused"].run('document.getElementById("name").focus()')
    flipgate.promote(web="green")
    with promises.that("after a flip, a page that polls is on green without a click"):
        eventually(lambda: tabs["plain"].title() == "green", 15, "it stays on blue")
    with promises.that("so is a page with the event stream"):
        eventually(lambda: tabs["events"].title() == "green", 15, "it stays on blue")
    with promises.that("a half-filled form is left alone, and so is a focused field"):
        # The other pages have reloaded meanwhile; these have had more time.
        same((tabs["typed"].title(), tabs["focused"].title()), ("blue", "blue"))
        same(tabs["typed"].run('document.getElementById("name").value'), "half")
    with promises.that("a page that the user returns to asks at once, and is on green"):
        same(tabs["returns"].title(), "blue")
        tabs["returns"].run(
            "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        eventually(lambda: tabs["returns"].title() == "green", 10, "it stays on blue")
    with promises.that("when the field is empty and without focus, the page reloads"):
        tabs["typed"].run('document.getElementById("name").value = ""')
        tabs["focused"].run("document.activeElement.blur()")
        for name in ("typed", "focused"):
            eventually(lambda name=name: tabs[name].title() == "green", 10, f"{name} stays on blue")
    with promises.that("each page was loaded once from green: there is no loop"):
        # Each page has polled several times since, also the one that never agrees.
        polls = lambda: tabs["plain"].run(
            "performance.getEntriesByType('resource').filter(it => it.name.endsWith('/version')).length")
        eventually(lambda: (polls() or 0) >= 4, 10, "the page does not poll")
        same({it: apps["green"].loads.get(f"/{it}") for it in paths}, {it: 1 for it in paths})
    with promises.that("after a rollback a page is on blue again"):
        flipgate.call("POST", "/v1/rollback", {})
        eventually(lambda: tabs["plain"].title() == "blue", 15, "it stays on green")
    end(browser.process)
    with promises.that("the pages and their streams hold no drain up"):
        same(flipgate.drain("web", wait="3s")["drained"], True)
    true(apps["blue"].loads, "blue was never asked")


if __name__ == "__main__":
    program(main)
