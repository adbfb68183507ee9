"""The sections of scripts/bench-gpu that have a CUDA program of their own: stream and bfs.

Each program interleaves its cases by itself, checks every result, and prints one JSON object a
case with all its runs (benches/reader_bench.cu, benches/bfs_bench.cu).
"""

import json
import os
import subprocess

from bench_files import make_file


def settings(text):
    """--ours as the environment variables that these programs look at."""
    found = {}
    for pair in filter(None, text.split(",")):
        key, _, value = pair.partition("=")
        if key == "path_policy":
            key, value = "path", ("auto", "auto", "cufile", "direct", "buffered")[int(value)]
        if key != "device":
            found["GDS_" + key.upper()] = value
    return found


def ask(bench, program, arguments, environment=None, limit=400):
    """What a program printed for each case; nothing where it failed, which becomes a note."""
    name = os.path.basename(program) or "a program"
    if not program:
        bench.notes.append("stream, bfs: not run, their programs were not built")
        return []
    command = [program, *arguments]
    print(f"  {' '.join([name, *arguments])}")
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, timeout=limit,
            env={**os.environ, **settings(bench.o.ours), **(environment or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        bench.notes.append(f"{name}: {error}")
        return []
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for answer in answers:
        if "error" in answer:
            wrong = "WRONG: " if "WRONG" in answer["error"] else ""
            bench.notes.append(f"{wrong}{name} {' '.join(arguments)}: {answer['error']}")
    if done.returncode != 0:
        return []
    return [answer for answer in answers if "case" in answer]


def keep(bench, title, figures):
    bench.details.append((title, figures))
    for label, values in figures.items():
        print(f"  {title}: {label:34}", " ".join(f"{value:.3f}" for value in values))


# ---- the reader ----------------------------------------------------------------------------


def setting(case):
    return f"{case['case']}, {case['chunk'] / (1 << 20):g} MiB x {case['buffers']}"


def stream_rows(bench, where, path, share, arguments):
    """The reader with a kernel a chunk, in its standard setting and in its best."""
    cases = ask(bench, bench.o.reader_program, [path, *arguments])
    if not cases:
        bench.row(f"{where}, stream with a kernel", "GB/s", None, {}, {}, [])
        return
    keep(bench, f"stream, {where}, GB/s", {setting(case): case["runs"] for case in cases})
    rate = {setting(case): case["gb_per_second"] for case in cases}
    ways = {}
    for case in cases:
        ways.setdefault(case["case"], []).append(setting(case))
    bulk = max((rate[s] for way in ("whole", "blocks") for s in ways.get(way, [])), default=None)
    limits = {"bulk read": bulk} if bulk else {}
    if "copy" in ways:
        copy = rate[ways["copy"][0]]
        bench.notes.append(f"stream, {where}: pinned copies {copy:.1f} GB/s in the same run.")
    shown = []
    if "stream" in ways:
        # The first is the standard setting.
        shown = [("stream with a kernel", ways["stream"][0]),
                 ("stream with a kernel", max(ways["stream"], key=rate.get))]  # fmt: skip
    if "sync" in ways:
        shown.append(("stream waiting for each kernel", ways["sync"][0]))
    seen = set()
    for title, name in shown:
        if name in seen:
            continue
        seen.add(name)
        met = rate[name] >= share * bulk if bulk else None
        target = [(f"{share:g} of the bulk read", met)] if title.endswith("with a kernel") else []
        buffers = name.split(", ", 1)[1]
        bench.row(f"{where}, {title}, {buffers}", "GB/s", rate[name], {}, limits,
                  target)  # fmt: skip


def stream(bench):
    o = bench.o
    runs = ["--runs", str(o.runs)]
    extra = o.stream_args.split()
    path = o.disk_file
    if o.stream_size != o.size:
        path = os.path.join(o.disk, "stream.bin")
        make_file(path, o.stream_size)
    try:
        stream_rows(bench, f"page-cached {o.stream_size / (1 << 30):g} GiB", path, 0.95,
                    [*runs, *extra])  # fmt: skip
    finally:
        if path != o.disk_file:
            os.unlink(path)
    cold = ["--cold", *runs, "--ways", "whole,blocks,stream", *extra]
    for where, path in bench.places():
        stream_rows(bench, f"{where}, cold", path, 0.98, cold)


# ---- graph search --------------------------------------------------------------------------


def bfs_rows(bench, where, path, arguments, environment):
    cases = ask(bench, bench.o.bfs_program, ["--file", path, *arguments], environment)
    if not cases:
        bench.row(f"BFS, {where}", "M edges/s", None, {}, {}, [])
        return

    def label(case):
        if case["state"] == "-":
            return case["case"]
        return f"{case['case']}, {case['cache_percent']} %, {case['state']}"

    keep(bench, f"BFS, {where}, ms",
         {label(case): [1e3 * run for run in case["runs"]] for case in cases})  # fmt: skip
    speed = {label(case): case["gteps"] * 1e3 for case in cases}
    rivals = {"zero-copy": speed["zerocopy"]} if "zerocopy" in speed else {}
    limits = {"device memory": speed["device"]} if "device" in speed else {}
    for case in cases:
        if case["state"] != "-":
            bench.row(f"BFS, {where}, {label(case)}", "M edges/s", speed[label(case)], rivals,
                      limits, [])  # fmt: skip
        if case["misses"] > 0:
            bench.notes.append(
                f"BFS, {where}, {label(case)}: {case['misses']:.0f} pages of {case['page']} bytes, "
                f"{case['pages_per_second'] / 1e6:.2f} M a second, "
                f"{case['amplification']:.2f} bytes read for each byte of edges."
            )


def bfs(bench):
    o = bench.o
    arguments = ["--runs", str(o.runs), *o.bfs_args.split()]
    bfs_rows(bench, "page-cached", os.path.join(o.disk, "edges.bin"), arguments, None)
    if o.block_file:
        path = os.path.join(o.block, "edges.bin")
        ways = ["--cold", "--ways", "device,zerocopy,cached"]
        bfs_rows(bench, "zram, direct", path, [*ways, *arguments], {"GDS_PATH": "direct"})
