"""What scripts/bench-formats runs: files of known formats loaded into device memory, beside peers.

    formats_bench.py --library libgds_rs.so --folder DIR --out DIR [SECTION...] [options]

Each section is a process of its own, which a time limit ends; it writes a line of JSON for each
row, detail, note and table of its own. Prints everything last; also writes formats.md and
results.json to --out. Contestants of a row take turns from the same state (in the page cache, or
out of it), figures are medians of the rounds, and one GB is 10^9 bytes.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../scripts"))
from bench_files import parse_size  # noqa: E402
from bench_report import output_of, table  # noqa: E402

SECTIONS = ["safetensors", "parquet", "decode", "arrow", "elf"]
# Sizes of --quick.
QUICK = {"tensor_size": 64 << 20, "sharded_size": 128 << 20, "scale": 0.05, "arrow_size": 64 << 20,
         "decode_size": 8 << 20, "elf_files": 100, "runs": 1}  # fmt: skip


def options(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    for name in ("library", "gds", "folder", "out", "fio", "lineitem", "run"):
        parser.add_argument("--" + name, default="")
    parser.add_argument("--runs", type=int)
    parser.add_argument("--limit", type=float, default=60)
    parser.add_argument("--tensor-size", type=parse_size)
    parser.add_argument("--sharded-size", type=parse_size)
    parser.add_argument("--scale", type=float)
    parser.add_argument("--writer", default="duckdb", choices=["duckdb", "pyarrow", "tpchgen"])
    parser.add_argument("--decode-size", type=parse_size)
    parser.add_argument("--arrow-size", type=parse_size)
    parser.add_argument("--elf-files", type=int)
    parser.add_argument("--elf-folder", action="append", default=[])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--skip-peers", action="store_true")
    o = parser.parse_args(arguments)
    usual = {"tensor_size": 4 << 30, "sharded_size": 16 << 30, "scale": 10, "runs": 3,
             "decode_size": 256 << 20, "arrow_size": 2 << 30, "elf_files": 3000}  # fmt: skip
    for name, value in usual.items():
        if getattr(o, name) is None:
            setattr(o, name, QUICK[name] if o.quick else value)
    unknown = set(o.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {' '.join(sorted(unknown))}; there are {' '.join(SECTIONS)}")
    return o


# ---- a section -----------------------------------------------------------------------------


class Bench:
    """A section's process: the library, memory, and what it says to the process that reports."""

    def __init__(self, o):
        from formats_gds import Gds, Memory
        self.o, self.folder = o, o.folder
        self.gds = Gds(o.library)
        self.memory = Memory(self.gds)
        self.began, self.deadline = time.monotonic(), None
        self.found_limit = None
        self.tell("device", self.gds.device)

    @staticmethod
    def tell(kind, value):
        print(json.dumps([kind, value]), flush=True)

    def note(self, text):
        self.tell("note", text)

    def wrong(self, text):
        self.tell("note", "WRONG BYTES: " + text)

    def detail(self, title, name, values, cores):
        self.tell("detail", [title, name, values, cores])

    def row(self, work, unit, ours, peers, limits, targets=()):
        """`targets`: what is wanted, and the figure that it takes (None: it was not measured)."""
        def best(figures):
            return max(figures.items(), key=lambda item: item[1], default=(None, None))

        judged = [(text, ours >= least if ours and least else None) for text, least in targets]
        self.tell("row", [work, unit, ours, best(peers), best(limits), judged])

    def grid(self, title, rows, columns, values):
        cells = [[values.get((row, column)) for column in columns] for row in rows]
        self.tell("grid", [title, rows, columns, cells])

    def made(self):
        """All is ready: the section's time begins."""
        self.tell("note", f"{self.o.run}: prepared in {time.monotonic() - self.began:.0f} s")
        self.deadline = time.monotonic() + self.o.limit

    def is_late(self):
        return self.deadline is not None and time.monotonic() > self.deadline

    def copy_limit(self):
        if not self.found_limit:
            self.found_limit = self.memory.limit()
        return self.found_limit

    def fio(self, title, path):
        """Its best of three shapes, by name; empty where it is missing."""
        found = {}
        for jobs, depth, block in ((1, 16, "4M"), (4, 16, "1M"), (4, 4, "16M")):
            part = os.path.getsize(path) // jobs >> 24 << 24
            if not self.o.fio or not part:
                break
            done = subprocess.run(
                [self.o.fio, "--name=x", f"--filename={path}", "--rw=read", f"--bs={block}",
                 "--direct=1", "--ioengine=io_uring", f"--iodepth={depth}", f"--numjobs={jobs}",
                 "--thread", "--group_reporting", "--output-format=json", f"--size={part}",
                 f"--offset_increment={part}", "--time_based", "--runtime=2"],
                capture_output=True, text=True,
            )  # fmt: skip
            text = done.stdout[done.stdout.find("{") :]
            if done.returncode == 0 and text:
                name = f"fio {jobs} x QD{depth} x {block}"
                found[name] = json.loads(text)["jobs"][0]["read"]["bw_bytes"] / 1e9
                self.detail(title, name, [found[name]], 0)
        return found


def run_section(o):
    bench = Bench(o)
    if o.run == "safetensors":
        import formats_tensors
        formats_tensors.run(bench)
    elif o.run == "elf":
        import formats_elf
        formats_elf.run(bench)
    else:
        import formats_columns
        getattr(formats_columns, o.run)(bench)


# ---- the report ----------------------------------------------------------------------------


class Report:
    def __init__(self, o, arguments):
        self.o, self.arguments, self.device = o, arguments, ""
        self.rows, self.details, self.notes, self.grids = [], [], [], []

    def take(self, line):
        kind, value = json.loads(line)
        if kind == "device":
            self.device = value
        else:
            getattr(self, kind + "s").append(value)
        if kind in ("note", "detail"):
            shown = value
            if kind == "detail":
                title, name, values, cores = value
                runs = " ".join(f"{v:.2f}" for v in values)
                shown = f"{title}: {name:32} {runs}  ({cores:.1f} cores)"
            print(f"  {shown}", flush=True)

    def section(self, name):
        print(f"== {name}", flush=True)
        folder = os.path.join(self.o.folder, name)
        os.makedirs(folder)
        began = time.monotonic()
        command = [sys.executable, os.path.realpath(__file__), *self.arguments,
                   "--run", name, "--folder", folder]  # fmt: skip
        # A section stops itself; what does not is stopped. Files take their time too.
        patience = 3 * self.o.limit + 60
        log = os.path.join(self.o.out, f"{name}.log")
        with open(log, "w") as errors:
            process = subprocess.Popen(
                ["timeout", "-k", "5", f"{patience:.0f}", *command],
                stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
            for line in process.stdout:
                try:
                    self.take(line)
                except (ValueError, TypeError, AttributeError):
                    print("  " + line, end="")  # Of a peer that prints.
            status = process.wait()
        subprocess.run(["rm", "-rf", folder])
        if status:
            with open(log) as file:
                last = file.read().strip().splitlines()[-1:]
            self.notes.append(f"FAILED: {name}: exit status {status}: {' '.join(last)[:300]}")
            print("  " + self.notes[-1])
        print(f"  {name}: {time.monotonic() - began:.0f} s", flush=True)

    def machine(self):
        model = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo")
                 if line.startswith("model name")][:1]  # fmt: skip
        gpu = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
        fs = output_of("stat", "-f", "-c", "%T", self.o.folder)
        paths = ("--library", "--gds", "--folder", "--out", "--fio")
        shown = [a for at, a in enumerate(sys.argv[1:])
                 if a not in paths and sys.argv[at] not in paths]  # fmt: skip
        versions = {}
        for name in ("torch", "safetensors", "fastsafetensors", "runai-model-streamer", "pyarrow",
                     "duckdb", "cudf-cu13", "tpchgen-cli"):  # fmt: skip
            try:
                from importlib.metadata import version
                versions[name] = version(name)
            except Exception:
                versions[name] = "not installed"
        return [
            f"Date: {datetime.date.today().isoformat()}",
            f"Device: {self.device}; GPU and driver: {gpu or 'none'}",
            f"Processor: {os.cpu_count()} x {' '.join(model)}; Linux {platform.release()}",
            f"Files on {fs}; page cache means: all of the file is in it before each run",
            "Peers: " + ", ".join(f"{name} {text}" for name, text in versions.items()),
            "Command: `scripts/bench-formats " + " ".join(shown) + "`",
        ]

    def texts(self):
        parts = [table(self.rows)] if self.rows else []
        for title, rows, columns, cells in self.grids:
            lines = [["encoding", *columns], ["-" * 8] * (len(columns) + 1)]
            shown = lambda value: f"{value:.2f}" if value else "-"  # noqa: E731
            lines += [[row, *map(shown, line)] for row, line in zip(rows, cells)]
            widths = [max(len(line[i]) for line in lines) for i in range(len(columns) + 1)]
            made = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths)) + " |"
                    for line in lines]  # fmt: skip
            parts.append(title + ":\n\n" + "\n".join(made))
        return "\n\n".join(parts)

    def write(self):
        text = ["# Formats", "", *(f"- {line}" for line in self.machine()), ""]
        text += ["Medians of interleaved runs; one GB is 10^9 bytes.", "", self.texts(), ""]
        text += [f"- {note}" for note in self.notes]
        text += ["", "## Every run", ""]
        text += ["| work | contestant | runs | cores |", "|---|---|---|---|"]
        for title, name, values, cores in self.details:
            runs = " ".join(f"{v:.2f}" for v in values)
            text.append(f"| {title} | {name} | {runs} | {cores:.1f} |")
        with open(os.path.join(self.o.out, "formats.md"), "w") as file:
            file.write("\n".join(text) + "\n")
        with open(os.path.join(self.o.out, "results.json"), "w") as file:
            found = {"machine": self.machine(), "rows": self.rows, "grids": self.grids,
                     "details": self.details, "notes": self.notes}  # fmt: skip
            json.dump(found, file, indent=1)


def main():
    o = options()
    if o.run:
        run_section(o)
        return
    arguments = [a for a in sys.argv[1:] if a not in o.sections]
    report, began = Report(o, arguments), time.monotonic()
    os.makedirs(o.out, exist_ok=True)
    try:
        for section in SECTIONS:
            if not o.sections or section in o.sections:
                report.section(section)
                report.write()
    except KeyboardInterrupt:
        report.notes.append("FAILED: stopped")
    print("\n".join(report.notes))
    print("\n".join(report.machine()))
    print(f"{time.monotonic() - began:.0f} s in all\n")
    print(report.texts())
    sys.exit(any(note.startswith(("FAILED", "WRONG")) for note in report.notes))


if __name__ == "__main__":
    main()
