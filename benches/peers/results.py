"""RESULTS.md, from what was measured."""

import collections
import datetime
import os
import platform
import pathlib
import re
import shlex
import statistics
import subprocess
import textwrap

from drill import FLIP_EVERY, MIX, RATE
from look import CLIENTS, FLIPS, TUNNELS
from processes import ROOT

PAGE = """\
# Flipgate and its peers: the same drill

{date}, commit {commit}, {machine}. Written by `{command}`; README.md beside this file says how to read it.

{versions}
{missing}
{caveats}

## The drill

{rate} requests a second, each begun when it is due, whatever becomes of the others ({mix}
percent); two sample applications behind each proxy; a flip every {flip_every} for {seconds} s. A flip is acknowledged when its
command (`flip.py`, the same for all) returns, and that is when whatever says that the flip is done has said
so (below).

{drill}

What broke, with its number (a flip in which the old color answered behind the new one counts once, however many got
that; a browser sends a GET again if its connection ends without an answer, the drill does not):

{broken}

## A flip by itself

{clients} clients, half of them on one connection and half on a new one for each question, and {flips} flips with each
way of waiting. "Bare" is the command alone: the call, the moved file or the signal.

{flip}

## A drain

{drain}

{drains}

## What it means

{meanings}

## What was not measured

- TLS, HTTP/2, several services in one flip, health checks, and an upstream that fails: only the flip.
- The CPU time is of a proxy that is flipped every {flip_every}, with one request in five a stream: compare it only
  within this table. What a request alone costs is in `../cost`. The command that flips is not counted for any peer.
- One run, on a machine with {cores} cores that the load, the applications and the proxy share: CPU times and
  milliseconds move by a third from run to run; whether something broke moves less, and rare breaks may be missed.
"""


def write(path, arguments, seconds, measured, missing, caveats):
    """`measured`: by peer its version, its drill and its look."""
    drills = {peer: it["drill"] for peer, it in measured.items() if it["drill"]}
    looks = {peer: it["look"] for peer, it in measured.items()}
    path.write_text(
        PAGE.format(
            date=datetime.date.today(),
            commit=commit(),
            machine=machine(),
            command=shlex.join(["benches/peers/run", *arguments]),
            versions=table(
                ["", "version", "configuration"],
                [[peer.title, it["version"], f"`{peer.configuration}`"] for peer, it in measured.items()],
            ),
            missing="".join(f"\n{it}\n" for it in missing),
            caveats="\n".join(wrapped(it) for it in caveats).replace("\n  ", "\n"),
            rate=RATE,
            mix=MIX.replace(",", ", ").replace("=", " "),
            flip_every=FLIP_EVERY,
            seconds=seconds,
            drill=of_drills(drills),
            broken="\n".join(wrapped(f"- {peer.title}: {what_broke(it)}.") for peer, it in drills.items()),
            clients=CLIENTS,
            flips=FLIPS,
            flip=of_flips(looks),
            drain=table(
                ["", "what can be known", "told: before a WebSocket, with one after a flip, after its end"],
                [[peer.title, peer.drain, told(it["drain"])] for peer, it in looks.items()],
            ),
            drains="\n".join(of_drains(peer, it["drains"]) for peer, it in measured.items() if it["drains"]),
            meanings="\n".join(wrapped(f"- **{peer.title}.** {peer.meaning}") for peer in measured),
            cores=os.cpu_count(),
        )
    )


# Tables


def of_drills(drills):
    head = [
        *("", "requests not answered", "answers by the wrong color", "streams cut, or not on one color"),
        *("bodies not whole", "trailers lost", "twice", "flips that failed", "acknowledgement: median, longest"),
        *("p99 between flips", "p99 near flips", "CPU of a request", "cores busy with others"),
    ]
    rows = []
    for peer, it in drills.items():
        answered, register, kept, once, acknowledged = (
            promise(it, name) for name in ("answered", "register", "kept", "once", "acknowledged")
        )
        promises = [answered, register, kept, *whole(it), once, acknowledged]
        took = f"{median(it['flip_ms'])}, {longest(it['flip_ms'])}"
        latencies = [latency(it, "steady"), latency(it, "near_flips")]
        rows.append([peer.title, *promises, took, *latencies, cpu(it), f"{it['others_cores']:.1f}"])
    return table(head, rows)


def of_flips(looks):
    head = [
        *("", "bare: median", "after that the old color answers for up to"),
        *("what says that it is done", "until then: median, longest", "after that the old color answers for up to"),
        *("questions that failed", "kept connections found closed", f"WebSockets alive after {2 * FLIPS} flips"),
    ]
    rows = []
    for peer, it in looks.items():
        bare, confirmed = it["bare"], it["confirmed"]
        failures = len(bare["failures"]) + len(confirmed["failures"])
        asked = bare["asked"] + confirmed["asked"]
        rows.append(
            [
                *(peer.title, median(bare["took_ms"]), late(bare["late_ms"]), peer.acknowledgement),
                f"{median(confirmed['took_ms'])}, {longest(confirmed['took_ms'])}",
                *(late(confirmed["late_ms"]), bold_if(failures, f"{failures} of {asked}")),
                bare["asked_again"] + confirmed["asked_again"],
                f"{it['tunnels_kept']} of {TUNNELS}",
            ]
        )
    return table(head, rows)


def of_drains(peer, report):
    told, most = field(report, "drains", "events"), field(report, "drains", "max_ms")
    early = promise(report, "drained")
    return wrapped(
        f"{peer.title} in a drill that flips by its own API: {told} drains were reported, at most {most} ms after their "
        f"flip; {early} answers and streams that they had to wait for were not over by then. What broke: "
        f"{what_broke(report)}."
    ).replace("\n  ", "\n")


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(it) for it in line) + " |" for line in lines)


# Cells. Of the drill's report, a field that is missing is a dash.


def field(report, *path):
    for name in path:
        report = report.get(name) if isinstance(report, dict) else None
    return report


def bold_if(is_bad, text):
    return f"**{text}**" if is_bad else text


def find_promise(report, name):
    return next((it for it in report.get("promises") or [] if it.get("name") == name), {})


def promise(report, name):
    said = find_promise(report, name)
    broken, checked = said.get("broken"), said.get("checked")
    if said.get("state") == "unchecked":
        return "not checked"
    if broken is None:
        return "–"
    return bold_if(broken, f"{broken} of {checked}")


TRAILERS_LOST = "its trailers were lost"
# A sentence of the drill of one request that went wrong.
SENTENCE = re.compile(r"\S+ ([\w-]+) \d+, begun at [^:]*: (.*?)(?: of (?:blue|green))? after [\d.]+ ms")
# And of one that was answered by the wrong color.
STALE = re.compile(r"answered \S+ ([\w-]+) \d+, begun ([\d.]+) ms after its flip away")


def what_broke(report):
    """By kind, as far as the drill lists it, which is not all if it is much."""
    listed, counts, latest_ms = report.get("violations") or [], collections.Counter(), 0
    for it in listed:
        text = it.get("text") or ""
        if found := SENTENCE.search(text):
            counts[f"{found[1]}: {found[2]}"] += 1
        elif found := STALE.search(text):
            counts[f"{found[1]}: the old color"] += 1
            latest_ms = max(latest_ms, float(found[2]))
        elif it.get("promise") == "register":
            counts["flips in which the old color answered behind the new one"] += 1
        else:
            counts[it.get("promise") or "?"] += 1
    parts = [f"{what} ({number})" for what, number in counts.most_common()]
    if latest_ms:
        parts.append(f"begun up to {latest_ms:.1f} ms after the acknowledgement")
    if unlisted(report) > 0:
        parts.append(f"and {unlisted(report)} that are not listed")
    return "; ".join(parts) or "nothing"


def whole(report):
    """Bodies that were not whole, and trailers that were lost, which the drill counts as one promise."""
    lost = sum(TRAILERS_LOST in (it.get("text") or "") for it in report.get("violations") or [])
    said = find_promise(report, "whole")
    if lost and unlisted(report):
        return bold_if(True, f"{said.get('broken')} of {said.get('checked')} with trailers"), f"at least {lost}"
    downloads = field(report, "requests", "by_kind", "download", "total")
    bodies = promise({"promises": [said | {"broken": (said.get("broken") or 0) - lost}]}, "whole") if said else "–"
    return bodies, bold_if(lost, f"{lost} of {downloads}")


def unlisted(report):
    """How many violations the drill counts and does not list."""
    listed = len(report.get("violations") or [])
    return (report.get("violations_total") or listed) - listed


def latency(report, when):
    value = field(report, "latency_ms", when, "p99")
    return "–" if value is None else f"{value:.1f} ms"


def cpu(report):
    total = field(report, "requests", "total")
    return f"{report['cpu_s'] / total * 1e6:.0f} µs" if total else "–"


def median(values):
    return f"{statistics.median(values):.1f} ms" if values else "–"


def longest(values):
    return f"{max(values):.1f} ms" if values else "–"


def late(values):
    return longest(values) if any(values) else "not seen"


def wrapped(text):
    return textwrap.fill(text, 116, subsequent_indent="  ", break_on_hyphens=False)


def told(counts):
    return "–" if all(it is None for it in counts) else ", ".join("–" if it is None else str(it) for it in counts)


# Where and what


def commit():
    short = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    done = subprocess.run(short, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def machine():
    names = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    processor = f" ({names[0]})" if names else ""
    return f"{platform.machine()} with {os.cpu_count()} cores{processor}, Linux {platform.release()}"
