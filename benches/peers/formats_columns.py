"""The sections of formats_bench.py on columns: Parquet, its encodings and codecs, Arrow IPC."""

import glob
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import formats_lineitem
import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
from formats_gds import MIB, Rounds

# What TPC-H's query 6 reads.
QUERY = ["l_orderkey", "l_extendedprice", "l_discount", "l_shipdate"]
CODECS = ["none", "snappy", "lz4", "zstd", "gzip"]


class Columns:
    """Columns of ours, closed when they are dropped."""

    def __init__(self, gds, columns):
        self.gds, self.columns = gds, columns

    def __del__(self):
        self.gds.library.gds_columns_close(self.columns)


def verify(bench, path, columns, table, name):
    """The values of a column of numbers without nulls, compared with those of pyarrow."""
    index = table.schema.get_field_index(name)
    want = b"".join(chunk.to_numpy().tobytes() for chunk in table[name].chunks)
    found = bench.gds.buffer_of(columns.columns, index, 1)
    if bench.memory.read(found.address, min(found.size, len(want))) != want[: found.size]:
        bench.wrong(f"{name} of {path} is not what pyarrow reads")
    if bench.gds.info(columns.columns).rows != table.num_rows:
        bench.wrong(f"{path} has not as many rows as pyarrow reads")


# ---- Parquet -------------------------------------------------------------------------------


def make_lineitem(bench):
    """lineitem at the scale asked for, and who made its rows and wrote its file."""
    o = bench.o
    if o.lineitem:
        return o.lineitem, f"{os.path.basename(o.lineitem)}"
    path = os.path.join(bench.folder, "lineitem.parquet")
    program = shutil.which("tpchgen-cli")
    if not program:
        bench.note("lineitem: no tpchgen-cli, rows of TPC-H's types and ranges by numpy")
        formats_lineitem.make(path, o.scale)
        return path, f"lineitem SF {o.scale:g} (numpy, pyarrow)"
    made = os.path.join(bench.folder, "tpch")
    subprocess.run(
        [program, "parquet", "-s", f"{o.scale:g}", "-T", "lineitem", "-o", made],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    source = glob.glob(f"{made}/**/*.parquet", recursive=True)[0]
    try:
        if o.writer == "duckdb":
            import duckdb
            duckdb.execute(f"COPY (FROM read_parquet('{source}')) TO '{path}' (FORMAT parquet)")
        elif o.writer == "pyarrow":
            with pq.ParquetWriter(path, pq.read_schema(source)) as writer:
                for batch in pq.ParquetFile(source).iter_batches(MIB):
                    writer.write_batch(batch)
        else:
            os.rename(source, path)
        writer = o.writer
    except ImportError:
        bench.note("lineitem: no DuckDB, the file is tpchgen-cli's own")
        os.rename(source, path)
        writer = "tpchgen"
    shutil.rmtree(made)
    return path, f"lineitem SF {o.scale:g} ({writer}, snappy)"


def parquet_peers(bench, path, names):
    """Functions that load the columns into device memory, by the peer's name."""
    found = {}

    def pyarrow_():
        table = pq.read_table(path, columns=names)
        return table, bench.memory.copy_table(table)

    found["pyarrow + copy"] = pyarrow_
    try:
        import duckdb
        chosen = ", ".join(names) if names else "*"

        def duckdb_():
            answer = duckdb.execute(f"SELECT {chosen} FROM read_parquet('{path}')")
            table = answer.to_arrow_table()
            return table, bench.memory.copy_table(table)

        found["DuckDB + copy"] = duckdb_
    except ImportError:
        bench.note("DuckDB: not installed")
    try:
        import cudf
        found["cuDF"] = lambda: cudf.read_parquet(path, columns=names)
    except ImportError:
        bench.note("cuDF: not installed")
    return {} if bench.o.skip_peers else found


def parquet(bench):
    path, what = make_lineitem(bench)
    bench.made()
    about = pq.read_metadata(path)
    bench.note(f"{what}: {os.path.getsize(path) / 1e9:.2f} GB, {about.num_rows} rows in "
               f"{about.num_row_groups} row groups, by {about.created_by}")  # fmt: skip
    limit_name, limit = bench.copy_limit()
    for names in (QUERY, None):
        gds = bench.gds
        table = pq.read_table(path, columns=names)
        size, rows = table.nbytes, table.num_rows
        columns = Columns(gds, gds.parquet(path, names))
        verify(bench, path, columns, table, "l_orderkey")
        del table, columns
        title = f"Parquet {what}, {len(names) if names else 'all'} columns"
        rounds = Rounds(bench, title, [path])
        rounds.add("ours", lambda: Columns(gds, gds.parquet(path, names)))
        for name, load in parquet_peers(bench, path, names).items():
            rounds.add(name, load)
        medians = rounds.run(size)
        ours = medians.pop("ours", None)
        pages = gds.pages_bytes(path, names)
        limits = {f"its pages by {limit_name}": limit * size / pages}
        slow = medians.get("pyarrow + copy")
        target = ("10 x pyarrow + copy", slow and 10 * slow)
        bench.row(title + ", decoded bytes", "GB/s", ours, medians, limits, [target])
        scale = rows / 1e6 / (size / 1e9)
        rate = {name: value * scale for name, value in medians.items()}
        bench.row(title + ", rows", "M/s", ours and ours * scale, rate, {})


# ---- encodings and codecs ------------------------------------------------------------------


def arrays(size):
    """An encoding, its column of about `size` bytes in memory, and what pyarrow is told."""
    random = np.random.default_rng(1)
    count = size // 8
    numbers = pa.array(random.integers(0, 1 << 40, count))
    ascending = pa.array(np.cumsum(random.integers(0, 100, count)))
    few = pa.array(random.integers(0, 5000, count) * 7919)
    prices = pa.array(np.round(random.random(count) * 1e5, 2))
    words = pa.array([f"word-{i:06d}" for i in range(5000)])
    texts = words.take(pa.array(random.integers(0, 5000, size // 16)))
    names = pa.array([f"https://host/{i // 100:06d}/item/{i:09d}" for i in range(20000)])
    paths = names.take(pa.array(np.arange(size // 40) % 20000))
    bits = pa.py_buffer(random.integers(0, 256, size // 4, dtype=np.uint8))
    flags = pa.Array.from_buffers(pa.bool_(), 8 * (size // 4), [None, bits])
    return [
        ("PLAIN int64", numbers, {}),
        ("PLAIN string", texts, {}),
        ("dictionary int64", few, {"use_dictionary": True}),
        ("dictionary string", texts, {"use_dictionary": True}),
        ("DELTA_BINARY_PACKED int64", ascending, "DELTA_BINARY_PACKED"),
        ("BYTE_STREAM_SPLIT double", prices, "BYTE_STREAM_SPLIT"),
        ("DELTA_LENGTH_BYTE_ARRAY", texts, "DELTA_LENGTH_BYTE_ARRAY"),
        ("DELTA_BYTE_ARRAY", paths, "DELTA_BYTE_ARRAY"),
        ("RLE boolean", flags, "RLE"),
    ]


def decode(bench):
    made = arrays(bench.o.decode_size)
    cases = [(name, values, how, codec) for name, values, how in made for codec in CODECS]

    def write(case):
        name, values, how, codec = case
        path = os.path.join(bench.folder, f"{name.replace(' ', '-')}-{codec}.parquet")
        options = {"column_encoding": how} if isinstance(how, str) else how
        pq.write_table(
            pa.table({"c": values}), path, compression=codec, data_page_version="2.0",
            # At its own level gzip takes minutes for some of these.
            compression_level=1 if codec == "gzip" else None,
            **{"use_dictionary": False, **options},
        )  # fmt: skip
        return path

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        paths = list(pool.map(write, cases))
    bench.made()
    gds, ours, theirs = bench.gds, {}, {}
    for (name, values, _, codec), path in zip(cases, paths):
        rounds = Rounds(bench, f"decode, {name}, {codec}", [path])
        rounds.add("ours", lambda: Columns(gds, gds.parquet(path)))
        if not bench.o.skip_peers:
            rounds.add("pyarrow, to host memory", lambda: pq.read_table(path), once=True)
        medians = rounds.run(values.nbytes)
        ours[name, codec] = medians.get("ours")
        theirs[name, codec] = medians.get("pyarrow, to host memory")
        if isinstance(values, pa.NumericArray):
            columns = Columns(gds, gds.parquet(path))
            verify(bench, path, columns, pa.table({"c": values}), "c")
        os.unlink(path)
    names = [name for name, _, _ in made]
    size = bench.o.decode_size / MIB
    bench.grid(f"ours, column of {size:.0f} MiB to {gds.device}, GB/s decoded", names, CODECS, ours)
    bench.grid("pyarrow, the same to host memory, GB/s decoded", names, CODECS, theirs)


# ---- Arrow IPC -----------------------------------------------------------------------------


def arrow_table(size):
    rows = size // 40
    random = np.random.default_rng(1)
    words = pa.array([f"word {i:06d}" for i in range(1000)])
    return pa.table({
        "i": pa.array(random.integers(0, 1 << 20, rows)),
        "f": pa.array(np.round(random.random(rows), 3)),
        "s": words.take(pa.array(random.integers(0, 1000, rows))),
        "n": pa.array(random.integers(0, 100, rows), mask=random.random(rows) < 0.1),
    })  # fmt: skip


def arrow(bench):
    table = arrow_table(bench.o.arrow_size)
    gds, memory = bench.gds, bench.memory
    limit_name, limit = bench.copy_limit()
    bench.made()
    for codec in (None, "lz4", "zstd"):
        path = os.path.join(bench.folder, f"table-{codec}.arrow")
        options = ipc.IpcWriteOptions(compression=codec)
        with ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=1 << 20)
        columns = Columns(gds, gds.arrow(path))
        one = table.slice(0, 1 << 20)
        want = one["i"].combine_chunks().to_numpy().tobytes()
        found = gds.buffer_of(columns.columns, 0, 1)
        if memory.read(found.address, len(want)) != want:
            bench.wrong(f"{path}: its first batch is not what was written")
        del columns

        def read_and_copy():
            with pa.memory_map(path) as file:
                read = ipc.open_file(file).read_all()
                # On the host a mapped table has moved nothing yet.
                held = memory.copy_table(read) if gds.on_gpu else [
                    bytes(b) for c in read.columns for k in c.chunks for b in k.buffers() if b
                ]  # fmt: skip
                return read, held

        def bulk():
            file, size = gds.open(path), os.path.getsize(path)
            buffer = gds.alloc(size)
            gds.read(file, buffer, size)
            return buffer

        title = f"Arrow IPC, {codec or 'not compressed'}, all columns"
        rounds = Rounds(bench, title, [path])
        rounds.add("ours", lambda: Columns(gds, gds.arrow(path)))
        if not bench.o.skip_peers:
            rounds.add("pyarrow + copy", read_and_copy)
        rounds.add("engine's bulk read of the file", bulk)
        medians = rounds.run(table.nbytes)
        ours = medians.pop("ours", None)
        name = "engine's bulk read of the file"
        limits = {name: medians.pop(name)} if name in medians else {limit_name: limit}
        bulk_rate = limits.get(name)
        target = [("0.95 of the bulk read", bulk_rate and 0.95 * bulk_rate)] if not codec else []
        bench.row(title, "GB/s", ours, medians, limits, target)
        os.unlink(path)
