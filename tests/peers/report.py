"""The page of a drill in Chromium: are its charts there, and do they show what happened? Needs chromium.

A script at the end of a copy of the page collects what Chromium renders: the size of each chart, its texts, the lengths
of its lines, and its colors when it is painted.
"""

import html
import json
import re
import subprocess
import sys

from sandbox import end, program, same, true

LOOK = """
<p id="seen">nothing</p>
<script>
async function painted(svg) {
  const image = new Image();
  image.src = "data:image/svg+xml;charset=utf-8,"
    + encodeURIComponent(new XMLSerializer().serializeToString(svg));
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [960, 300];
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, 960, 300);
  context.drawImage(image, 0, 0, 960, 300);
  const data = context.getImageData(0, 0, 960, 300).data;
  const near = (at, red, green, blue) => Math.abs(data[at] - red) < 40
    && Math.abs(data[at + 1] - green) < 40 && Math.abs(data[at + 2] - blue) < 40;
  const count = { blue: 0, green: 0, amber: 0, dark: 0 };
  for (let at = 0; at < data.length; at += 4) {
    if (near(at, 0x1f, 0x6f, 0xd6)) count.blue += 1;
    if (near(at, 0x14, 0x91, 0x5b)) count.green += 1;
    if (near(at, 0xd0, 0x7a, 0x0a)) count.amber += 1;
    if (near(at, 0x33, 0x3b, 0x45)) count.dark += 1;
  }
  return count;
}
async function width_on_a_phone() {
  const frame = document.createElement("iframe");
  frame.style = "width: 390px; height: 800px; border: 0";
  frame.srcdoc = document.documentElement.outerHTML.replace(/<script>[^]*/, "");
  const loaded = new Promise(done => frame.onload = done);
  document.body.append(frame);
  await loaded;
  const width = frame.contentDocument.documentElement.scrollWidth;
  frame.remove();
  return width;
}
async function look() {
  const seen = { title: document.title, pictures: {}, phone: await width_on_a_phone() };
  seen.verdict = document.querySelector("#verdict h1").textContent;
  seen.promises = [...document.querySelectorAll("#promises tbody tr")].map(
    row => row.children[1].textContent);
  seen.broken = document.querySelectorAll("#violations tbody tr").length;
  seen.figures = Object.fromEntries([...document.querySelectorAll(".figures div")].map(
    it => [it.querySelector("span").textContent, it.querySelector("b").textContent]));
  for (const section of document.querySelectorAll("section")) {
    const svg = section.querySelector("svg.wide");
    if (!svg) continue;
    const moves = name => (svg.querySelector("path." + name)?.getAttribute("d").match(/M/g) || []).length;
    const box = svg.getBoundingClientRect();
    seen.pictures[section.id] = {
      width: box.width, height: box.height,
      words: [...section.querySelectorAll(".legend span, svg.wide text")].map(it => it.textContent.trim()),
      lines: [...svg.querySelectorAll("path")].map(it => it.getTotalLength()),
      flips: moves("flip"), parts: moves("p50"), bands: svg.querySelectorAll("rect.band").length,
      colors: await painted(svg),
    };
  }
  seen.fetched = performance.getEntriesByType("resource").filter(
    it => !it.name.startsWith("data:")).length;
  seen.overflow = document.documentElement.scrollWidth > innerWidth;
  return seen;
}
look().catch(error => ({ error: String(error) })).then(seen => {
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
</script>
"""

OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server", "--window-size=1200,900",
    "--virtual-time-budget=10000", "--dump-dom",
]


def main(sandbox, promises):
    bad_colors = ["--step", "at 1s refuse web", "--step", "at 2s guard web"]
    good = drill(sandbox, "good", "--services", "2", "--flip-every", "200ms", *bad_colors, duration="6s")
    with promises.that("a drill of a Flipgate of its own is clean, and its page says so"):
        same((good["code"], good["json"]["clean"]), (0, True))
        same(good["page"].get("verdict"), "11 of 11 tested promises held; 3 were not tested.")
    page = good["page"]
    with promises.that("the script in the page came to its end, and the page fetched nothing"):
        same((page.get("error"), page.get("fetched"), page.get("overflow")), (None, 0, False))
    with promises.that("the page is not wider than a phone"):
        true(300 < page["phone"] <= 390, page["phone"])
    with promises.that("every promise is listed, and those that the drill tests are held"):
        # Steps that end transactions exclude scans and pages.
        same(page["promises"], ["held"] * 11 + ["not tested"] * 3)
    with promises.that("the figures on the page are those of the JSON"):
        same(page["figures"]["requests"], str(good["json"]["requests"]["total"]))
        flips = good["json"]["flips"]["count"]
        same(page["figures"]["flips succeeded"], f"{flips} of {flips}")
    pictures = page["pictures"]
    with promises.that("there are four charts, each as wide as the page and with lines on it"):
        same(sorted(pictures), ["colors", "drains", "latency", "percentiles"])
        for name, it in pictures.items():
            true(it["width"] > 700 and it["height"] > 200, f"{name}: {it['width']} × {it['height']}")
            true(max(it["lines"], default=0) > 500, f"{name}: the longest line is {it['lines']}")
    with promises.that("latencies are drawn over time, with the flips marked"):
        words = pictures["latency"]["words"]
        for word in ("1 s", "ms", "p50", "p99", "maximum", "flip"):
            true(word in words, f"no {word} in {words}")
        true(pictures["latency"]["flips"] >= flips * 0.9, f"{pictures['latency']['flips']} of {flips} flips")
        same((pictures["latency"]["parts"], pictures["latency"]["bands"]), (1, 0))
        true(pictures["latency"]["colors"]["amber"] > 200, pictures["latency"]["colors"])
    with promises.that("percentiles near flips are compared with those away from them"):
        words = pictures["percentiles"]["words"]
        for word in ("more than 100 ms from a flip", "within 100 ms of a flip", "p99.9"):
            true(word in words, f"no {word} in {words}")
        colors = pictures["percentiles"]["colors"]
        true(colors["amber"] > 200 and colors["dark"] > 200, colors)
    with promises.that("the responses of blue and of green have their colors"):
        colors = pictures["colors"]["colors"]
        true(colors["blue"] > 500 and colors["green"] > 500, colors)
    with promises.that("requests that hold a replaced color are drawn for each color of each service"):
        words = pictures["drains"]["words"]
        for word in ("web blue", "web green", "api blue", "api green", "requests in flight"):
            true(word in words, f"no {word} in {words}")
    bad = drill(sandbox, "bad", "--step", "at 500ms rollback")
    with promises.that("a page of a drill in which a promise is broken says which, and lists it"):
        same((bad["code"], bad["json"]["clean"]), (1, False))
        true("; 1 is broken" in bad["page"]["verdict"], bad["page"]["verdict"])
        true("broken" in bad["page"]["promises"], bad["page"]["promises"])
        same(bad["page"]["broken"], 1)
    killed = drill(sandbox, "killed", "--flip-every", "200ms", "--step", "at 1s kill proxy", "--step", "at 2s start proxy")
    with promises.that("the time in which the drill had killed the proxy is a gap, and the steps are marked"):
        same((killed["code"], killed["json"]["clean"]), (0, True))
        latency = killed["page"]["pictures"]["latency"]
        same(latency["bands"], 1)
        true(latency["parts"] > 1, f"{latency['parts']} parts")
        for word in ("step", "proxy stopped"):
            true(word in latency["words"], f"no {word} in {latency['words']}")
        # The tooltip of a step and its number.
        for step in ("kill proxy1", "start proxy2"):
            true(any(it.endswith(f" s: {step}") for it in latency["words"]), f"no {step} in {latency['words']}")
    with promises.that("the figure of flips agrees with the promise"):
        counts = killed["json"]["flips"]
        same(killed["page"]["figures"]["flips succeeded"], f"{counts['succeeded']} of {counts['succeeded']}")
        same(counts["failed"], 0)


def drill(sandbox, name, *options, duration="3s"):
    """The exit code of a drill, its JSON, and what Chromium renders of its page."""
    report = sandbox.folder / f"{name}.html"
    command = [sys.argv[1], "drill", "--demo", "--json", "--duration", duration, "--rate", "150"]
    done = subprocess.run([*command, "--report", report, *options], capture_output=True, text=True,
                          timeout=20)
    true(done.stdout, f"the drill printed nothing: {done.stderr[-500:]}")
    copy = sandbox.folder / f"{name}-with-script.html"
    copy.write_text(report.read_text().replace("</body>", LOOK + "</body>"))
    return {"code": done.returncode, "json": json.loads(done.stdout), "page": browse(sandbox, copy)}


def browse(sandbox, page):
    command = ["chromium", *OPTIONS, f"--user-data-dir={sandbox.folder}/profile", page.as_uri()]
    process = sandbox.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = process.communicate(timeout=15)[0]
    finally:
        end(process)
    found = re.search(r'<p id="seen">(.*?)</p>', said)
    true(found and found[1] != "nothing", f"the script did not run: {said[-300:]}")
    return json.loads(html.unescape(found[1]))


if __name__ == "__main__":
    program(main)
