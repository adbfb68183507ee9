"""Times loading Parquet columns on the host device beside pyarrow, in one run, files warm.

    parquet_host_bench.py LIBRARY FOLDER [MILLIONS=6] [RUNS=5] [NAMES]

Writes a table like TPC-H's lineitem (16 columns, MILLIONS million rows) to FOLDER as pyarrow and
DuckDB write it (the latter where the module duckdb is there), and keeps the files for the next run.
Loads all columns, three numbers, and the longest strings alone; ours and pyarrow's runs take turns,
each RUNS times. Prints one JSON object a case: seconds, the median of each, how many times
pyarrow's speed ours has, against the faster one of pyarrow with a memory map and without, and the
seconds of all cores that each takes, which other work on the machine changes less.
NAMES, separated by commas, picks files. What both load is compared once a file. Needs pyarrow and
numpy.
"""

import ctypes
import json
import os
import statistics
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LIBRARY, FOLDER = sys.argv[1:3]
MILLIONS = float(sys.argv[3]) if len(sys.argv) > 3 else 6
RUNS = int(sys.argv[4]) if len(sys.argv) > 4 else 5
ONLY = sys.argv[5].split(",") if len(sys.argv) > 5 else None
gds = ctypes.CDLL(LIBRARY)
gds.gds_last_error_message.restype = ctypes.c_char_p
P = ctypes.c_void_p
NUMBERS = ["l_orderkey", "l_extendedprice", "l_shipdate"]
CASES = {"all": None, "three numbers": NUMBERS, "strings": ["l_comment"]}


def call(name, *arguments):
    if getattr(gds, name)(*arguments) != 0:
        raise RuntimeError(f"{name}: {gds.gds_last_error_message().decode()}")


class Selection(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
        ("columns", ctypes.POINTER(ctypes.c_char_p)), ("column_count", ctypes.c_uint64),
        ("row_groups", P), ("row_group_count", ctypes.c_uint64),
        ("rows", P), ("row_range_count", ctypes.c_uint64),
        ("conditions", P), ("condition_count", ctypes.c_uint64),
        ("memory_limit", ctypes.c_uint64),
    ]


def ours(context, path, names, table=False):
    file, parquet, columns = P(), P(), P()
    call("gds_file_open", context, os.fsencode(path), 1, ctypes.byref(file))
    call("gds_parquet_open", file, None, ctypes.byref(parquet))
    chosen = Selection(ctypes.sizeof(Selection))
    if names:
        chosen.columns = (ctypes.c_char_p * len(names))(*[n.encode() for n in names])
        chosen.column_count = len(names)
    call("gds_parquet_load", parquet, ctypes.byref(chosen), ctypes.byref(columns))
    result = None
    if table:
        stream = (ctypes.c_char * 64)()
        call("gds_columns_host_stream", columns, stream)
        reader = pa.RecordBatchReader._import_from_c(ctypes.addressof(stream))
        result = reader.read_all()
    gds.gds_columns_close(columns)
    gds.gds_parquet_close(parquet)
    gds.gds_file_close(file)
    return result


def theirs(path, names, memory_map):
    return pq.read_table(path, columns=names, memory_map=memory_map)


def strings(random, pool, lengths):
    """Slices of a text, as many as there are lengths."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    starts = random.integers(0, len(pool) - 64, len(lengths))
    bytes_ = np.empty(offsets[-1], np.uint8)
    step = 1 << 18
    for at in range(0, len(lengths), step):
        own = lengths[at:at + step]
        first, last = offsets[at], offsets[min(at + step, len(lengths))]
        within = np.arange(last - first) - np.repeat(offsets[at:at + len(own)] - first, own)
        bytes_[first:last] = pool[np.repeat(starts[at:at + step], own) + within]
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(bytes_)]
    return pa.Array.from_buffers(pa.string(), len(lengths), buffers)


def lineitem(rows):
    random = np.random.default_rng(1)
    words = np.array(["furiously", "final", "deposits", "sleep", "quickly", "ironic", "requests",
                      "about", "the", "carefully", "regular", "packages", "haggle", "above"])
    pool = " ".join(words[random.integers(0, len(words), 1 << 16)]).encode()
    pool = np.frombuffer(pool, np.uint8)

    def pick(values):
        return pa.array(np.array(values)[random.integers(0, len(values), rows)])

    def date():
        return pa.array(random.integers(8000, 10500, rows).astype("int32"), pa.date32())

    cents = random.integers(90_000, 10_500_000, rows)
    wide = np.zeros((rows, 2), np.int64)
    wide[:, 0] = cents
    price = pa.Array.from_buffers(pa.decimal128(15, 2), rows, [None, pa.py_buffer(wide)])
    return pa.table({
        "l_orderkey": np.sort(random.integers(1, rows, rows)),
        "l_partkey": random.integers(1, 200_000, rows),
        "l_suppkey": random.integers(1, 10_000, rows),
        "l_linenumber": random.integers(1, 8, rows).astype("int32"),
        "l_quantity": random.integers(1, 51, rows).astype("float64"),
        "l_extendedprice": price,
        "l_discount": random.integers(0, 11, rows) / 100,
        "l_tax": random.integers(0, 9, rows) / 100,
        "l_returnflag": pick(["A", "N", "R"]),
        "l_linestatus": pick(["O", "F"]),
        "l_shipdate": date(),
        "l_commitdate": date(),
        "l_receiptdate": pa.array(random.integers(8000, 10500, rows).astype("int32"),
                                  pa.date32(), mask=random.random(rows) < 0.05),
        "l_shipinstruct": pick(["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"]),
        "l_shipmode": pick(["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]),
        "l_comment": strings(random, pool, random.integers(10, 44, rows)),
    })


def write(table, path, name):
    if name.startswith("duckdb"):
        import duckdb
        codec = name.split()[1]
        duckdb.connect().execute(
            f"copy (select * from \"table\") to '{path}' (format parquet, compression {codec})")
    elif name == "pyarrow plain":
        pq.write_table(table, path, compression="none", use_dictionary=False)
    else:
        pq.write_table(table, path, compression=name.split()[1])


def main():
    os.environ["GDS_DEVICE"] = "host"
    context = P()
    call("gds_context_open", None, ctypes.byref(context))
    table = None
    for name in ("pyarrow snappy", "pyarrow zstd", "pyarrow plain", "duckdb snappy", "duckdb zstd"):
        if ONLY and name.replace(" ", "-") not in ONLY:
            continue
        path = os.path.join(FOLDER, f"lineitem-{MILLIONS:g}-{name.replace(' ', '-')}.parquet")
        if not os.path.exists(path):
            table = table or lineitem(int(MILLIONS * 1e6))
            try:
                write(table, path, name)
            except ImportError:
                continue
        expected = theirs(path, None, False)
        if not ours(context, path, None, True).equals(expected):
            raise RuntimeError(f"{name}: what was loaded differs")
        sizes = {case: expected.select(n or expected.column_names).nbytes
                 for case, n in CASES.items()}
        del expected
        for case, names in CASES.items():
            ways = {
                "ours": lambda: ours(context, path, names),
                "pyarrow": lambda: theirs(path, names, False),
                "pyarrow, mapped": lambda: theirs(path, names, True),
            }
            times, cores = {way: [] for way in ways}, {way: [] for way in ways}
            for _ in range(RUNS):
                for way, work in ways.items():
                    start, before = time.perf_counter(), time.process_time()
                    work()
                    times[way].append(time.perf_counter() - start)
                    cores[way].append(time.process_time() - before)
            medians = {way: statistics.median(t) for way, t in times.items()}
            cpu = {way: statistics.median(t) for way, t in cores.items()}
            peer = min(medians["pyarrow"], medians["pyarrow, mapped"])
            print(json.dumps({
                "file": name, "columns": case, "bytes": sizes[case],
                "file_bytes": os.path.getsize(path),
                **{way: round(t, 3) for way, t in medians.items()},
                "ours/pyarrow": round(peer / medians["ours"], 2),
                "cpu": {way: round(t, 3) for way, t in cpu.items()},
            }), flush=True)
    gds.gds_context_close(context)


main()
