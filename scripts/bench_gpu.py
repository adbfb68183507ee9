"""The measurements of scripts/bench-gpu: ours, the peers and the limits, interleaved.

Each contestant is a process that stays up and takes one command a line (benches/gds_bench.c), so
a round runs ours, each peer and fio, and starts over. Before every run the file is made cold or
warm, and cachestat(2) or mincore(2) confirms it. A figure is the median of the rounds.
"""

import argparse
import functools
import json
import os
import select
import statistics
import subprocess
import sys
import time

import bench_feeding
from bench_files import MIB, cached_pages, make_cold, make_file, make_warm, parse_size
from bench_report import report, table

SECTIONS = "pcie warm disk-read zram-read disk-write zram-write small batch host stream bfs".split()
STARTED = time.monotonic()


# ---- contestants ---------------------------------------------------------------------------


class Worker:
    """A program that answers one JSON object a command."""

    def __init__(self, name, arguments, config="config"):
        self.name, self.error, self.cores = name, None, 0.0
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.about = self.ask(config)
        self.error = self.about.get("error")

    def cpu_seconds(self):
        try:
            with open(f"/proc/{self.process.pid}/stat") as file:
                fields = file.read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return 0.0

    def ask(self, command, limit=120):
        if self.error:
            return {"error": self.error}
        before, begin = self.cpu_seconds(), time.monotonic()
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            if not select.select([self.process.stdout], [], [], limit)[0]:
                self.process.kill()
                self.error = f"no answer within {limit} s"
            else:
                line = self.process.stdout.readline()
                if line:
                    answer = json.loads(line)
                    answer["cpu_seconds"] = self.cpu_seconds() - before
                    answer["wall_seconds"] = time.monotonic() - begin
                    if "error" in answer:
                        print(f"  {self.name}: {command.split()[0]}: {answer['error']}")
                    return answer
                self.error = "it ended"
        except (OSError, ValueError) as error:
            self.error = str(error)
        print(f"  {self.name}: {self.error}")
        return {"error": self.error}

    def close(self):
        try:
            self.process.stdin.close()
            self.process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()


def fio(program, path, size, kind, jobs, depth, block="1M", seconds=2):
    """GB/s (or operations a second for random kinds); None where fio is missing or fails."""
    if not program:
        return None
    part = size // jobs // MIB * MIB
    command = [
        program, "--name=x", f"--filename={path}", f"--rw={kind}", f"--bs={block}",
        "--direct=1", "--ioengine=io_uring", f"--iodepth={depth}", f"--numjobs={jobs}",
        "--thread", "--group_reporting", "--output-format=json", "--registerfiles",
        "--fixedbufs", f"--size={part}", f"--offset_increment={part}", "--randrepeat=0",
        "--norandommap", "--fallocate=none", "--lat_percentiles=1", "--clat_percentiles=0",
    ]  # fmt: skip
    if kind == "write":
        command += ["--end_fsync=1", "--overwrite=1"]
    else:
        command += ["--time_based", f"--runtime={seconds}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    text = done.stdout[done.stdout.find("{") :]
    if done.returncode != 0 or not text:
        print(f"  fio: {done.stderr.strip()[:200]}")
        return None
    job = json.loads(text)["jobs"][0]["write" if kind.endswith("write") else "read"]
    if kind.startswith("rand"):
        # lat and not clat: a device that answers within the submission has no clat to speak of.
        latency = job["lat_ns"].get("percentile", {})
        return {"iops": job["iops"], "p50_us": latency.get("50.000000", 0) / 1e3}
    return job["bw_bytes"] / 1e9


def shape_name(shape):
    return f"fio {shape[0]} x QD{shape[1]} x {(*shape, '1M')[2]}"


def speed(answer):
    """GB/s of an answer, or None."""
    return answer["bytes"] / answer["seconds"] / 1e9 if answer.get("seconds") else None


class Bench:
    def __init__(self, options):
        self.o = options
        self.rows, self.details, self.notes, self.workers = [], [], [], {}

    def worker(self, name):
        if name not in self.workers:
            o = self.o
            ours = "config " + " ".join(o.ours.split(",")) if o.ours else "config"
            made = {
                "ours": ([o.ours_program], ours),
                "ours-1": (
                    [o.ours_program],
                    "config io_threads=1 max_outstanding_io=16 max_batch_size=16",
                ),
                "host": ([o.ours_program], "config device=-1"),
                "cufile": ([o.cufile_program, o.cufile_library], "config"),
                "kvikio": ([sys.executable, o.kvikio_program], "config"),
            }[name]
            self.workers[name] = Worker(name, *made)
            print(f"  {name}: {self.workers[name].about}")
        return self.workers[name]

    def peers(self):
        return [] if self.o.skip_peers else ["kvikio", "cufile"]

    def rounds(self, title, contestants, runs=None):
        """Runs each (label, prepare, measure) in turn, `runs` times; medians by label."""
        figures = {label: [] for label, _, _ in contestants}
        for _ in range(runs or self.o.runs):
            for label, prepare, measure in contestants:
                prepare()
                value = measure()
                if value is not None:
                    figures[label].append(value)
        self.details.append((title, figures))
        for label, v in figures.items():
            print(f"  {title}: {label:34}", " ".join(f"{x:.2f}" for x in v) or "failed")
        return {label: statistics.median(v) for label, v in figures.items() if v}

    def row(self, work, unit, ours, peers, limits, targets, less_is_better=False):
        pick = min if less_is_better else max
        best, limit = (
            pick(d.items(), key=lambda item: item[1]) if d else (None, None)
            for d in (peers, limits)
        )
        self.rows.append((work, unit, ours, best, limit, targets))

    # -- sequential --

    def peer_reads(self, path, prepare, warm):
        size = self.o.size
        made = []
        kvikio = [
            ("KvikIO default", ""),
            ("KvikIO 4 x 4 MiB", "threads=4 task=4194304"),
            ("KvikIO 8 x 16 MiB", "threads=8 task=16777216"),
            ("KvikIO 16 x 4 MiB", "threads=16 task=4194304"),
        ]
        kvikio.append(
            ("KvikIO 8 x 4 MiB POSIX", "threads=8 task=4194304 compat=on direct=0")
            if warm
            else ("KvikIO 16 x 4 MiB POSIX direct", "threads=16 task=4194304 compat=on direct=1")
        )
        cufile = [(f"cuFile {t} thread{'s' * (t > 1)}", f"threads={t}") for t in (1, 4, 8)]
        for name, variants in (("kvikio", kvikio), ("cufile", cufile)):
            for label, extra in variants if name in self.peers() else []:
                command = f"read path={path} size={size} {extra}"
                ask = lambda n=name, c=command: speed(self.worker(n).ask(c))  # noqa: E731
                made.append((label, prepare, ask))
        return made

    def ours_read(self, path, worker="ours"):
        return speed(self.worker(worker).ask(f"read path={path} size={self.o.size}"))

    def warm(self):
        path = self.o.disk_file
        prepare = functools.partial(make_warm, path)
        pcie = self.pcie_limit()
        self.worker("ours").ask(f"read path={path} size={self.o.size}")  # pools are set up
        medians = self.rounds(
            "page-cached",
            [("ours", prepare, lambda: self.ours_read(path))]
            + self.peer_reads(path, prepare, warm=True),
        )
        self.check_ours(path)
        ours = medians.pop("ours", None)
        rivals = {k: v for k, v in medians.items() if k == "KvikIO default" or "cuFile" in k}
        targets = [("at least 50 GB/s", ours >= 50 if ours else None)]
        for label in ("KvikIO default", "cuFile"):
            best = max((v for k, v in rivals.items() if k.startswith(label)), default=None)
            met = ours >= 10 * best if ours and best else None
            targets.append((f"10 x {label}" + (f" ({best:.1f})" if best else ""), met))
        self.row("page-cached file to device", "GB/s", ours, medians, pcie, targets)

    def check_ours(self, path):
        answer = self.worker("ours").ask(f"check path={path} size={self.o.size}")
        if "error" in answer:
            self.notes.append(f"WRONG BYTES after moving {path}: {answer['error']}")

    def fio_best(self, path, kind):
        # Larger blocks too: some devices give their best only to those.
        shapes = [(1, 16), (1, 32), (4, 16), (8, 16), (16, 8), (2, 16, "4M"), (4, 4, "16M")]
        tried = {shape: fio(self.o.fio, path, self.o.size, kind, *shape) for shape in shapes}
        seen = {shape: value for shape, value in tried.items() if value}
        named = {shape_name(shape): value for shape, value in seen.items()}
        self.details.append((f"fio sweep, {kind}", {k: [v] for k, v in named.items()}))
        shown = ", ".join(f"{name[4:]}: {value:.2f}" for name, value in named.items())
        print(f"  fio sweep, {kind}, {os.path.dirname(path)}: {shown}")
        # Two go into the rounds: the best of one try each is partly luck.
        return sorted(seen, key=seen.get, reverse=True)[:2]

    def fio_rounds(self, path, kind, shapes, prepare):
        made = []
        for shape in shapes:
            run = functools.partial(fio, self.o.fio, path, self.o.size, kind, *shape)
            made.append((shape_name(shape), prepare, run))
        return made

    def cold_read(self, where, path):
        prepare = functools.partial(make_cold, path)
        shapes = self.fio_best(path, "read")
        prepare()
        self.ours_read(path)
        contestants = [("ours", prepare, lambda: self.ours_read(path))]
        contestants += self.fio_rounds(path, "read", shapes, lambda: None)
        plain = f"plain path={path} size={self.o.size} block={16 * MIB} direct=1"
        loop = lambda: speed(self.worker("host").ask(plain))  # noqa: E731
        contestants.append(("plain O_DIRECT pread", prepare, loop))
        loop()
        contestants += self.peer_reads(path, prepare, warm=False)
        if where == "zram":
            one = lambda: self.ours_read(path, "ours-1")  # noqa: E731
            contestants.append(("ours, one thread, QD16", prepare, one))
            run1 = lambda: fio(self.o.fio, path, self.o.size, "read", 1, 16)  # noqa: E731
            contestants.append(("fio 1 x QD16 (equal depth)", lambda: None, run1))
        medians = self.rounds(f"{where} cold read", contestants)
        self.check_ours(path)
        ours = medians.pop("ours", None)
        one = medians.pop("ours, one thread, QD16", None)
        fio_one = medians.pop("fio 1 x QD16 (equal depth)", None)
        limits = {k: medians.pop(k) for k in list(medians) if k.startswith(("fio", "plain"))}
        if where == "disk":
            targets = self.against(ours, medians, limits, 0.98)
        else:
            kvikio = max((v for k, v in medians.items() if "KvikIO" in k), default=None)
            met = ours >= 1.1 * kvikio if ours and kvikio else None
            targets = [("1.1 x KvikIO's best", met)]
        self.row(f"{where}, cold, to device", "GB/s", ours, medians, limits, targets)
        if where == "zram":
            met = one >= 0.9 * fio_one if one and fio_one else None
            self.row(
                "zram, cold, one submitting thread", "GB/s", one, {},
                {"fio 1 x QD16": fio_one} if fio_one else {},
                [("0.9 of fio at equal depth", met)],
            )  # fmt: skip

    def against(self, ours, peers, limits, share):
        limit, peer = max(limits.values(), default=None), max(peers.values(), default=None)
        return [
            (f"{share:g} of the limit", ours >= share * limit if ours and limit else None),
            ("not under a peer", ours >= peer if ours and peer else None),
        ]

    def write(self, where, source):
        path = source + ".out"
        make_file(path, self.o.size)
        size = self.o.size
        # What is written is random: the source, read to the device by each program.
        for name in ["ours", *self.peers()]:
            self.worker(name).ask(f"read path={source} size={size}")
        self.worker("host").ask(f"plain path={source} size={size}")
        plain = f"plain path={path} size={size} block={16 * MIB} direct=1 write=1"

        prepare = functools.partial(make_cold, path)
        shapes = self.fio_best(path, "write")
        command = f"write path={path} size={size} "

        def ask(name, extra=""):
            return lambda: speed(self.worker(name).ask(command + extra))

        def ours():
            value = ask("ours")()
            self.check_ours(path)
            return value

        contestants = [("ours", prepare, ours)]
        loop = lambda: speed(self.worker("host").ask(plain))  # noqa: E731
        contestants.append(("plain O_DIRECT pwrite, fsync", prepare, loop))
        contestants += self.fio_rounds(path, "write", shapes, prepare)
        if self.peers():
            contestants += [
                ("KvikIO default", prepare, ask("kvikio")),
                ("KvikIO 8 x 16 MiB", prepare, ask("kvikio", "threads=8 task=16777216")),
                ("cuFile 1 thread", prepare, ask("cufile", "threads=1")),
                ("cuFile 8 threads", prepare, ask("cufile", "threads=8")),
            ]
        medians = self.rounds(f"{where} write", contestants)
        os.unlink(path)
        ours = medians.pop("ours", None)
        limits = {k: medians.pop(k) for k in list(medians) if k.startswith(("fio", "plain"))}
        self.row(
            f"{where}, write from device", "GB/s", ours, medians, limits,
            self.against(ours, medians, limits, 1.0),
        )  # fmt: skip

    # -- small --

    def small(self):
        for where, path in self.places():
            make_cold(path)
            count = 20000 if where == "zram" else 5000
            command = f"latency path={path} size={self.o.size} count={count}"
            figures = {"ours": [], "cuFile": [], "KvikIO": []}
            tails = {"ours": [], "cuFile": [], "KvikIO": []}
            for _ in range(self.o.runs):
                for label, name in (("ours", "ours"), ("cuFile", "cufile"), ("KvikIO", "kvikio")):
                    if name != "ours" and name not in self.peers():
                        continue
                    make_cold(path)
                    answer = self.worker(name).ask(command)
                    if "p50_us" in answer:
                        figures[label].append(answer["p50_us"])
                        tails[label].append(answer["p99_us"])
            self.details.append((f"{where} 4 KiB QD1 p50, us", figures))
            self.details.append((f"{where} 4 KiB QD1 p99, us", tails))
            medians = {k: statistics.median(v) for k, v in figures.items() if v}
            for label, values in figures.items():
                print(f"  {where} 4 KiB QD1: {label:8} p50 {values} p99 {tails[label]}")
            alone = fio(self.o.fio, path, self.o.size, "randread", 1, 1, "4k", 1)
            ours = medians.pop("ours", None)
            cufile = medians.get("cuFile")
            met = ours < cufile if ours and cufile else None
            self.row(
                f"{where}, 4 KiB random, depth 1, p50", "us", ours, medians,
                {"fio to host memory": alone["p50_us"]} if alone else {},
                [("under cuFile", met)], less_is_better=True,
            )  # fmt: skip

    def batch(self):
        for where, path in self.places():
            size = self.o.size
            # A part of the pages: were it all, neighbours could be read together.
            count = min(1_000_000 if where == "zram" else 100_000, size // 4096 // 4)
            make_cold(path)

            def iops(name, extra, n):
                command = f"batch path={path} size={size} count={n} {extra}"
                answer = self.worker(name).ask(command)
                cached, pages = cached_pages(path)
                if "WRONG" in answer.get("error", ""):
                    self.notes.append(f"WRONG BYTES in a batch of {name}")
                elif cached > n // 100 + 64:
                    self.notes.append(f"{where} batch, {name}: {cached} of {pages} became cached")
                return answer["iops"] / 1e6 if "iops" in answer else None

            prepare = functools.partial(make_cold, path)
            contestants = [
                ("ours, one batch", prepare, lambda: iops("ours", "", count)),
                ("ours, 16384 a batch", prepare, lambda: iops("ours", "submit=16384", count)),
            ]
            if self.peers():
                n = count // 5
                contestants += [
                    ("cuFile 16 threads", prepare, lambda: iops("cufile", "threads=16", n)),
                    ("KvikIO 16 threads", prepare, lambda: iops("kvikio", "threads=16", n // 4)),
                ]
            medians = self.rounds(f"{where} 4 KiB batched, M/s", contestants)
            mine = [medians.pop(k) for k in list(medians) if k.startswith("ours")]
            ours = max(mine, default=None)
            alone = fio(self.o.fio, path, size, "randread", 16, 64, "4k", 1)
            met = ours >= 1 if ours else None
            target = [("1 M a second", met)] if where == "zram" else []
            self.row(
                f"{where}, 4 KiB random, batched", "M/s", ours, medians,
                {"fio to host memory, 16 x QD64": alone["iops"] / 1e6} if alone else {}, target,
            )  # fmt: skip

    # -- host device --

    def host(self):
        path, size = self.o.disk_file, self.o.size

        def ask(verb, block, extra=""):
            command = f"{verb} path={path} size={size} block={block} {extra}"
            return lambda: speed(self.worker("host").ask(command))

        warm, cold = functools.partial(make_warm, path), functools.partial(make_cold, path)
        self.worker("host").ask(f"plain path={path} size={size}")
        self.worker("host").ask(f"host path={path} size={size}")
        for name, block in (("4 KiB", 4096), ("64 KiB", 65536), ("1 MiB", MIB), ("whole", size)):
            medians = self.rounds(
                f"host device, warm, {name}",
                [("ours", warm, ask("host", block)), ("plain pread", warm, ask("plain", block))],
                max(self.o.runs, 5),
            )
            ours, plain = medians.get("ours"), medians.get("plain pread")
            met = ours >= 0.98 * plain if ours and plain else None
            self.row(
                f"host device, warm, {name} calls", "GB/s", ours, {},
                {"plain pread loop": plain} if plain else {}, [("0.98 of the plain loop", met)],
            )  # fmt: skip
        shapes = self.fio_best(path, "read")
        contestants = [
            ("ours", cold, ask("host", size)),
            ("plain O_DIRECT pread", cold, ask("plain", 16 * MIB, "direct=1")),
        ]
        contestants += self.fio_rounds(path, "read", shapes, lambda: None)
        medians = self.rounds("host device, cold", contestants)
        ours = medians.pop("ours", None)
        fio_best = max((v for k, v in medians.items() if k.startswith("fio")), default=None)
        met = ours >= 0.98 * fio_best if ours and fio_best else None
        self.row(
            "host device, disk, cold", "GB/s", ours, {}, medians, [("0.98 of fio's best", met)]
        )

    def pcie_limit(self):
        if not hasattr(self, "copies"):
            self.copies = self.worker("cufile").ask(f"pcie size={1 << 30}")
        found = self.copies.get("to_device")
        return {"PCIe, pinned": found} if found else {}

    def pcie(self):
        limit = self.pcie_limit()
        self.notes.append(
            f"Pinned copies: {limit.get('PCIe, pinned', 0):.1f} GB/s to the device, "
            f"{self.copies.get('from_device', 0):.1f} GB/s back."
        )

    # -- programs of their own --

    def stream(self):
        bench_feeding.stream(self)

    def bfs(self):
        bench_feeding.bfs(self)

    def places(self):
        return [("disk", self.o.disk_file)] + (
            [("zram", self.o.block_file)] if self.o.block_file else []
        )

    def run(self):
        for section in self.o.sections:
            if time.monotonic() - STARTED > self.o.limit:
                self.notes.append(f"{section}: not run, the time was used up")
                continue
            begin = time.monotonic()
            print(f"== {section}")
            where = section.split("-")[0]
            path = self.o.block_file if where == "zram" else self.o.disk_file
            if path is None:
                self.notes.append(f"{section}: not run, there is no fast block device")
            elif section.endswith("-read"):
                self.cold_read(where, path)
            elif section.endswith("-write"):
                self.write(where, path)
            else:
                getattr(self, section)()
            print(f"  {section}: {time.monotonic() - begin:.0f} s")
        for worker in self.workers.values():
            worker.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    parser.add_argument("--size", type=parse_size, default=4 << 30)
    parser.add_argument("--stream-size", type=parse_size, default=16 << 30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ours", default="")
    parser.add_argument("--limit", type=float, default=450)
    parser.add_argument("--skip-peers", action="store_true")
    parser.add_argument("--stream-args", default="")
    parser.add_argument("--bfs-args", default="")
    paths = "out ours-program cufile-program cufile-library kvikio-program fio disk block"
    paths += " reader-program bfs-program"
    for name in paths.split():
        parser.add_argument("--" + name, default="")
    o = parser.parse_args()
    unknown = set(o.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"unknown section {' '.join(sorted(unknown))}; there are {' '.join(SECTIONS)}")
    o.arguments = [*o.sections, "--size", f"{o.size >> 20}M", "--runs", str(o.runs)]
    o.arguments += ["--ours", o.ours] if o.ours else []
    o.sections = [s for s in SECTIONS if not o.sections or s in o.sections]
    o.disk_file = os.path.join(o.disk, "random.bin")
    o.block_file = os.path.join(o.block, "random.bin") if o.block else None
    begin = time.monotonic()
    if o.sections != ["bfs"]:
        for path in filter(None, (o.disk_file, o.block_file)):
            make_file(path, o.size)
    print(f"files made in {time.monotonic() - begin:.0f} s")
    bench = Bench(o)
    try:
        bench.run()
    finally:
        report(bench)
    for note in bench.notes:
        print(note)
    print(f"{time.monotonic() - STARTED:.0f} s in all\n")
    print(table(bench.rows))
    wrong = any(note.startswith("WRONG") for note in bench.notes)
    sys.exit(1 if wrong else 0)


main()
