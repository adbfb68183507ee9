"""Times KvikIO by the commands of ../gds_bench.c. Needs kvikio, cupy and numpy.

    config
    read    path= size= [threads=0] [task=0] [compat=auto|on] [direct=0|1]
    write   path= size= [threads=0] [task=0] [compat=auto|on]
    latency path= size= count= [block=4096]
    batch   path= size= count= [threads=16]

0 leaves KvikIO's own default. One JSON object a line on stdout.
"""

import json
import os
import random
import sys
import time

import cupy
import kvikio
import kvikio.defaults

DEFAULTS = {
    key: kvikio.defaults.get(key)
    for key in ("num_threads", "task_size", "compat_mode", "auto_direct_io_read")
}
state = {"buffer": None}


def buffer(size):
    if state["buffer"] is None or state["buffer"].nbytes < size:
        state["buffer"] = None
        cupy.get_default_memory_pool().free_all_blocks()
        state["buffer"] = cupy.zeros(size, dtype=cupy.uint8)
        cupy.cuda.runtime.deviceSynchronize()
    return state["buffer"][:size]


def choose(options):
    wanted = dict(DEFAULTS)
    for key, name in (("threads", "num_threads"), ("task", "task_size")):
        if int(options.get(key, 0)) > 0:
            wanted[name] = int(options[key])
    if options.get("compat") == "on":
        wanted["compat_mode"] = kvikio.CompatMode.ON
    if "direct" in options:
        wanted["auto_direct_io_read"] = options["direct"] == "1"
    kvikio.defaults.set(wanted)


def sequential(options, writing):
    size = int(options["size"])
    data = buffer(size)
    choose(options)
    file = kvikio.CuFile(options["path"], "r+" if writing else "r")
    begin = time.perf_counter()
    moved = file.write(data) if writing else file.read(data)
    if writing:
        os.fdatasync(file.fileno())
    seconds = time.perf_counter() - begin
    file.close()
    if moved != size:
        return {"error": f"{moved} of {size} bytes"}
    return {"seconds": seconds, "bytes": moved}


def latency(options):
    size, count = int(options["size"]), int(options["count"])
    block = int(options.get("block", 4096))
    choose(options)
    targets = buffer(64 << 20)
    pick = random.Random(7919)
    times = []
    with kvikio.CuFile(options["path"], "r") as file:
        for _ in range(count):
            at = pick.randrange(size // block) * block
            to = pick.randrange((64 << 20) // block) * block
            target = targets[to : to + block]
            begin = time.perf_counter()
            file.read(target, block, at)
            times.append((time.perf_counter() - begin) * 1e6)
    times.sort()
    return {
        "p50_us": times[count // 2],
        "p99_us": times[count * 99 // 100],
        "mean_us": sum(times) / count,
        "count": count,
    }


def batch(options):
    size, count = int(options["size"]), int(options["count"])
    choose({"threads": 16, **options})
    targets = buffer(count * 4096)
    pick = random.Random(7919)
    work = [
        (targets[i * 4096 : (i + 1) * 4096], pick.randrange(size // 4096) * 4096)
        for i in range(count)
    ]
    with kvikio.CuFile(options["path"], "r") as file:
        begin = time.perf_counter()
        futures = [file.pread(target, 4096, at) for target, at in work]
        for future in futures:
            future.get()
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "iops": count / seconds}


def main():
    for line in sys.stdin:
        verb, *words = line.split()
        options = dict(word.split("=", 1) for word in words)
        try:
            if verb == "config":
                answer = {
                    "version": kvikio.__version__,
                    "defaults": {key: str(value) for key, value in DEFAULTS.items()},
                }
            elif verb in ("read", "write"):
                answer = sequential(options, verb == "write")
            elif verb == "latency":
                answer = latency(options)
            elif verb == "batch":
                answer = batch(options)
            else:
                answer = {"error": "unknown command"}
        except Exception as error:  # a peer's failure is a result, not the end of the run
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
