"""A drill's page in Chromium: are its pictures there, and do they show what happened? Needs chromium.

A script is put at the end of a copy of the page. It looks at what Chromium has made of it: how large each
picture is, what is written on it, how long its lines are, and which colors it has when it is painted.
"""

import html
import json
import re
import subprocess
import sys

from house import end, program, same, true

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
async function look() {
  const seen = { title: document.title, pictures: {} };
  seen.verdict = document.querySelector("#verdict h1").textContent;
  seen.promises = [...document.querySelectorAll("#promises tbody tr")].map(
    row => row.children[1].textContent);
  seen.broken = document.querySelectorAll("#violations tbody tr").length;
  seen.figures = Object.fromEntries([...document.querySelectorAll(".figures div")].map(
    it => [it.querySelector("span").textContent, it.querySelector("b").textContent]));
  for (const section of document.querySelectorAll("section")) {
    const svg = section.querySelector("svg");
    if (!svg) continue;
    const box = svg.getBoundingClientRect();
    seen.pictures[section.id] = {
      width: box.width, height: box.height,
      words: [...svg.querySelectorAll("text")].map(it => it.textContent.trim()),
      lines: [...svg.querySelectorAll("polyline")].map(it => it.getTotalLength()),
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


def main(house, promises):
    good = drill(house, "good", "--services", "2", "--flip-every", "200ms")
    with promises.that("a drill of a Flipgate of its own is clean, and its page says so"):
        same((good["code"], good["json"]["clean"]), (0, True))
        same(good["page"].get("verdict"), "Every promise held")
    page = good["page"]
    with promises.that("the script that looks at the page came to its end, and the page fetched nothing"):
        same((page.get("error"), page.get("fetched"), page.get("overflow")), (None, 0, False))
    with promises.that("every promise is listed, and held"):
        same(page["promises"], ["held"] * 9)
    with promises.that("the figures on the page are those of the JSON"):
        same(page["figures"]["requests"], str(good["json"]["requests"]["total"]))
        flips = good["json"]["flips"]["count"]
        same(page["figures"]["flips succeeded"], f"{flips} of {flips}")
    pictures = page["pictures"]
    with promises.that("there are four pictures, each as wide as the page and with lines on it"):
        same(sorted(pictures), ["colors", "drains", "latency", "percentiles"])
        for name, it in pictures.items():
            true(it["width"] > 700 and it["height"] > 200, f"{name}: {it['width']} × {it['height']}")
            true(max(it["lines"], default=0) > 500, f"{name}: the longest line is {it['lines']}")
    with promises.that("latencies are drawn over time, with the flips marked"):
        words, lines = pictures["latency"]["words"], pictures["latency"]["lines"]
        for word in ("seconds", "milliseconds", "p50", "p99", "at most", "flip"):
            true(word in words, f"no {word} in {words}")
        true(len(lines) > good["json"]["flips"]["count"], f"{len(lines)} lines")
        true(pictures["latency"]["colors"]["amber"] > 200, pictures["latency"]["colors"])
    with promises.that("percentiles near flips stand beside those away from them"):
        words = pictures["percentiles"]["words"]
        for word in ("away from flips", "within 100 ms of a flip", "p99.9"):
            true(word in words, f"no {word} in {words}")
        colors = pictures["percentiles"]["colors"]
        true(colors["amber"] > 200 and colors["dark"] > 200, colors)
    with promises.that("who answered is painted in blue and in green"):
        colors = pictures["colors"]["colors"]
        true(colors["blue"] > 500 and colors["green"] > 500, colors)
    with promises.that("who was still inside is drawn for each color of each service"):
        words = pictures["drains"]["words"]
        for word in ("web blue", "web green", "api blue", "api green", "still inside"):
            true(word in words, f"no {word} in {words}")
    bad = drill(house, "bad", "--step", "at 500ms rollback")
    with promises.that("a page of a drill in which a promise is broken says which, and lists it"):
        same((bad["code"], bad["json"]["clean"]), (1, False))
        same(bad["page"]["verdict"], "Not every promise held")
        true("broken" in bad["page"]["promises"], bad["page"]["promises"])
        same(bad["page"]["broken"], 1)


def drill(house, name, *options):
    """The exit code of a drill, its JSON, and what Chromium makes of its page."""
    report = house.folder / f"{name}.html"
    command = [sys.argv[1], "drill", "--demo", "--json", "--duration", "3s", "--rate", "150"]
    done = subprocess.run([*command, "--report", report, *options], capture_output=True, text=True,
                          timeout=20)
    true(done.stdout, f"the drill said nothing: {done.stderr[-500:]}")
    copy = house.folder / f"{name}-looked-at.html"
    copy.write_text(report.read_text().replace("</body>", LOOK + "</body>"))
    return {"code": done.returncode, "json": json.loads(done.stdout), "page": browse(house, copy)}


def browse(house, page):
    command = ["chromium", *OPTIONS, f"--user-data-dir={house.folder}/profile", page.as_uri()]
    process = house.start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = process.communicate(timeout=15)[0]
    finally:
        end(process)
    found = re.search(r'<p id="seen">(.*?)</p>', said)
    true(found and found[1] != "nothing", f"the page was not looked at: {said[-300:]}")
    return json.loads(html.unescape(found[1]))


if __name__ == "__main__":
    program(main)
