"""What scripts/bench-gpu says at its end: a table, performance.md and results.json."""

import datetime
import glob
import json
import os
import platform
import subprocess


def output_of(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()
    except OSError:
        return ""


def machine(options):
    gpu = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    model = ""
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    fs = output_of("stat", "-f", "-c", "%T", options.disk)
    about = [
        f"Date: {datetime.date.today().isoformat()}",
        f"GPU and driver: {gpu or 'none'}",
        f"Processor: {os.cpu_count()} x {model}; Linux {platform.release()}",
        f"Disk: {fs}; file of {options.size / (1 << 30):g} GiB of random bytes",
        f"nvidia-fs: {'loaded' if glob.glob('/proc/driver/nvidia-fs/*') else 'not loaded'}",
        "Command: `scripts/bench-gpu " + " ".join(options.arguments) + "`",
    ]
    if options.block_file:
        about.insert(4, "zram: a compressed block device in memory, ext4, data=ordered")
    return about


def table(rows):
    head = "work|unit|ours|best peer|limit|ours/peer|ours/limit|target|met".split("|")
    lines = []
    for work, unit, ours, (peer_name, peer), (limit_name, limit), targets in rows:
        cells = [work, unit, f"{ours:.2f}" if ours else "failed"]
        cells.append(f"{peer:.2f} ({peer_name})" if peer else "-")
        cells.append(f"{limit:.2f} ({limit_name})" if limit else "-")
        cells.append(f"{ours / peer:.2f}" if ours and peer else "-")
        cells.append(f"{ours / limit:.2f}" if ours and limit else "-")
        cells.append("; ".join(text for text, _ in targets) or "-")
        words = {True: "yes", False: "NO"}
        cells.append("; ".join(words.get(met, "?") for _, met in targets) or "-")
        lines.append(cells)
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    shown = []
    for line in [head, ["-" * w for w in widths], *lines]:
        shown.append("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |")
    return "\n".join(shown)


def report(bench):
    o = bench.o
    text = ["# Performance", ""]
    text += [f"- {line}" for line in machine(o)]
    for name, worker in bench.workers.items():
        text.append(f"- {name}: {json.dumps(worker.about)}")
    text += ["", "Medians of interleaved runs; one GB is 10^9 bytes.", ""]
    text += [table(bench.rows), ""]
    text += [f"- {note}" for note in bench.notes]
    text += ["", "## Every run", "", "| work | contestant | runs |", "|---|---|---|"]
    for title, figures in bench.details:
        for label, values in figures.items():
            runs = " ".join(f"{v:.2f}" for v in values) or "failed or left out"
            text.append(f"| {title} | {label} | {runs} |")
    with open(os.path.join(o.out, "performance.md"), "w") as file:
        file.write("\n".join(text) + "\n")
    with open(os.path.join(o.out, "results.json"), "w") as file:
        json.dump(
            {"rows": bench.rows, "details": bench.details, "notes": bench.notes}, file, indent=1
        )
