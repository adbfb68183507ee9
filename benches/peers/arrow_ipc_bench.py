"""Times Arrow IPC files on the host device beside pyarrow, in one run, warm and cold.

    arrow_ipc_bench.py LIBRARY FOLDER [MIB=512] [RUNS=5]

Writes files of MIB MiB of columns (int64, float64, strings, of which the last has nulls) to FOLDER,
not compressed, LZ4 and Zstandard; loads all columns and one of four. Ours and pyarrow's runs take
turns, each RUNS times. Prints one JSON object a case: GB/s of decoded buffers, the median of each,
how many times pyarrow's speed ours has, and the seconds of all cores ("cpu"), which other work on
the machine changes less. "pyarrow" reads into memory of its own; "pyarrow, mapped" maps the file
and touches each page, for a map that nobody looks at moves nothing. The limit is a plain read of
the same file into memory that is there already. Needs pyarrow and numpy.
"""

import ctypes
import json
import os
import statistics
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc

LIBRARY, FOLDER = sys.argv[1:3]
MIB = int(sys.argv[3]) if len(sys.argv) > 3 else 512
RUNS = int(sys.argv[4]) if len(sys.argv) > 4 else 5
gds = ctypes.CDLL(LIBRARY)
gds.gds_last_error_message.restype = ctypes.c_char_p
P = ctypes.c_void_p


def call(name, *arguments):
    if getattr(gds, name)(*arguments) != 0:
        raise RuntimeError(f"{name}: {gds.gds_last_error_message().decode()}")


class Selection(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32), ("validate", ctypes.c_int32),
        ("columns", ctypes.POINTER(ctypes.c_char_p)), ("column_count", ctypes.c_uint64),
        ("first_batch", ctypes.c_uint64), ("batch_count", ctypes.c_uint64),
        ("ahead", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("options", P),
    ]


def ours(context, path, names, validate):
    file, arrow, columns = P(), P(), P()
    call("gds_file_open", context, os.fsencode(path), 1, ctypes.byref(file))
    call("gds_arrow_open", file, ctypes.byref(arrow))
    chosen = Selection(ctypes.sizeof(Selection), validate)
    if names:
        chosen.columns = (ctypes.c_char_p * len(names))(*[n.encode() for n in names])
        chosen.column_count = len(names)
    call("gds_arrow_load", arrow, ctypes.byref(chosen), ctypes.byref(columns))
    gds.gds_columns_close(columns)
    gds.gds_arrow_close(arrow)
    gds.gds_file_close(file)


def theirs(path, names):
    options = ipc.IpcReadOptions()
    with pa.OSFile(path, "rb") as file:
        if names:
            schema = ipc.open_file(file).schema
            options.included_fields = [schema.get_field_index(n) for n in names]
        ipc.open_file(file, options=options).read_all()


def mapped(path, names):
    with pa.memory_map(path) as file:
        table = ipc.open_file(file).read_all()
        for column in table.select(names or table.column_names).columns:
            for chunk in column.chunks:
                for buffer in filter(None, chunk.buffers()):
                    np.frombuffer(buffer, np.uint8)[::4096].sum()


def plain(path, into):
    with open(path, "rb", buffering=0) as file:
        while file.readinto(into):
            pass


def medians(ways, path, cold):
    """Seconds of each way, and seconds of all cores."""
    times, cores = {way: [] for way in ways}, {way: [] for way in ways}
    for _ in range(RUNS):
        for way, work in ways.items():
            if cold:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start, before = time.perf_counter(), time.process_time()
            work()
            times[way].append(time.perf_counter() - start)
            cores[way].append(time.process_time() - before)
    both = (times, cores)
    return ({way: statistics.median(t) for way, t in some.items()} for some in both)


def main():
    rows = MIB * (1 << 20) // 40
    random = np.random.default_rng(1)
    number = pa.array(random.integers(0, 1 << 20, rows))
    words = np.array([f"word {i:06d}" for i in range(1000)])
    table = pa.table({
        "i": number,
        "f": pa.array(np.round(random.random(rows), 3)),
        "s": pa.array(words[random.integers(0, 1000, rows)]),
        "n": pa.array(random.integers(0, 100, rows), mask=random.random(rows) < 0.1),
    })
    os.environ["GDS_DEVICE"] = "host"
    context = P()
    call("gds_context_open", None, ctypes.byref(context))
    into = memoryview(bytearray(16 << 20))
    for codec in (None, "lz4", "zstd"):
        path = os.path.join(FOLDER, f"bench-{codec}.arrow")
        with ipc.new_file(path, table.schema, options=ipc.IpcWriteOptions(compression=codec)) as w:
            w.write_table(table, max_chunksize=1 << 20)
        for names, cold in ((None, False), (["f"], False), (None, True), (["f"], True)):
            size = (table.select(names) if names else table).nbytes
            result = {
                "codec": codec or "none", "columns": len(names) if names else 4,
                "cold": cold, "bytes": size, "file_bytes": os.path.getsize(path),
            }
            ways = {
                "ours": lambda: ours(context, path, names, 0),
                "ours, not validated": lambda: ours(context, path, names, 2),
                "pyarrow": lambda: theirs(path, names),
                "pyarrow, mapped": lambda: mapped(path, names),
            }
            if not names:
                ways["plain read of the file"] = lambda: plain(path, into)
            seconds, cores = medians(ways, path, cold)
            for name, time_ in seconds.items():
                is_plain = name.startswith("plain")
                moved = os.path.getsize(path) if is_plain else size
                result[name] = round(moved / time_ / 1e9, 2)
            for peer in ("pyarrow", "pyarrow, mapped"):
                result[f"ours/{peer}"] = round(seconds[peer] / seconds["ours"], 2)
            result["cpu"] = {name: round(time_, 4) for name, time_ in cores.items()}
            print(json.dumps(result), flush=True)
        os.unlink(path)
    gds.gds_context_close(context)


main()
