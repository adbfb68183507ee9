"""Compares what libgds_rs loads with what pyarrow reads, value by value, on the host device.

    arrow_oracle.py LIBRARY corpus DIR        every file below DIR
    arrow_oracle.py LIBRARY product DIR       files of pyarrow, written to DIR: types x compression
                                              x nulls x nesting x dictionaries x views x batches
    arrow_oracle.py LIBRARY sample DIR        a part of them: an eighth, and all dictionaries
    arrow_oracle.py LIBRARY consumers DIR     nanoarrow, polars and duckdb import what is exported

The last line is "compared N, refused N, failed N".
"""

import ctypes
import decimal
import itertools
import os
import random
import subprocess
import sys
import threading

import pyarrow as pa
import pyarrow.ipc as ipc

LIBRARY, MODE, FOLDER = sys.argv[1:4]
gds = ctypes.CDLL(LIBRARY)
gds.gds_last_error_message.restype = ctypes.c_char_p
gds.gds_status_string.restype = ctypes.c_char_p
gds.gds_context_close.restype = None
gds.gds_file_close.restype = None
gds.gds_arrow_close.restype = None
gds.gds_columns_close.restype = None
P = ctypes.c_void_p


class Failed(Exception):
    pass


def call(name, *arguments):
    status = getattr(gds, name)(*arguments)
    if status != 0:
        word = gds.gds_status_string(status).decode()
        raise Failed(f"{name}: {word}: {gds.gds_last_error_message().decode()}")


class Selection(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_uint32), ("validate", ctypes.c_int32),
        ("columns", ctypes.POINTER(ctypes.c_char_p)), ("column_count", ctypes.c_uint64),
        ("first_batch", ctypes.c_uint64), ("batch_count", ctypes.c_uint64),
        ("ahead", ctypes.c_uint32), ("reserved", ctypes.c_uint32), ("options", P),
    ]


def selection(names=None, first=0, count=0):
    chosen = Selection()
    chosen.struct_size = ctypes.sizeof(Selection)
    chosen.first_batch, chosen.batch_count = first, count
    if names is not None:
        chosen.columns = (ctypes.c_char_p * max(1, len(names)))(*[n.encode() for n in names])
        chosen.column_count = len(names)
    return chosen


def context():
    os.environ["GDS_DEVICE"] = "host"
    handle = P()
    call("gds_context_open", None, ctypes.byref(handle))
    return handle


CONTEXT = context()


class Reader:
    def __init__(self, path):
        self.file, self.arrow = P(), P()
        call("gds_file_open", CONTEXT, os.fsencode(path), 1, ctypes.byref(self.file))
        try:
            call("gds_arrow_open", self.file, ctypes.byref(self.arrow))
        except Failed:
            gds.gds_file_close(self.file)
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        gds.gds_arrow_close(self.arrow)
        gds.gds_file_close(self.file)

    def host_stream(self, chosen=None):
        """Batch after batch, by ArrowArrayStream."""
        place = (ctypes.c_uint8 * 40)()
        given = ctypes.byref(chosen) if chosen else None
        call("gds_arrow_host_stream", self.arrow, given, place)
        return pa.RecordBatchReader._import_from_c(ctypes.addressof(place))

    def loaded(self, chosen=None):
        """All at once, each batch by ArrowDeviceArray; the handle is closed before they are."""
        columns = P()
        given = ctypes.byref(chosen) if chosen else None
        call("gds_arrow_load", self.arrow, given, ctypes.byref(columns))
        info = (ctypes.c_uint64 * 4)(32)
        call("gds_columns_info", columns, info)
        batches = []
        for index in range(info[1]):
            schema, array = (ctypes.c_uint8 * 72)(), (ctypes.c_uint8 * 128)()
            call("gds_columns_schema", columns, schema)
            call("gds_columns_export", columns, ctypes.c_uint64(index), array)
            assert int.from_bytes(bytes(array[88:92]), "little") == 1, "device type CPU"
            batches.append(pa.RecordBatch._import_from_c_device(
                ctypes.addressof(array), ctypes.addressof(schema)))
        gds.gds_columns_close(columns)
        return batches


def piped(path):
    """Through a pipe, by ArrowDeviceArrayStream."""
    read, write = os.pipe()

    def feed():
        with os.fdopen(write, "wb") as pipe, open(path, "rb") as file:
            try:
                while part := file.read(7919):
                    pipe.write(part)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    stream = (ctypes.c_uint8 * 48)()
    try:
        try:
            call("gds_arrow_stream_fd", CONTEXT, read, None, stream)
        finally:
            os.close(read)
        return device_stream(stream)
    finally:
        thread.join()


def device_stream(stream):
    pointers = (P * 6).from_buffer(stream)
    next_ = ctypes.CFUNCTYPE(ctypes.c_int, P, P)
    address = ctypes.addressof(stream)
    batches = []
    try:
        while True:
            schema, array = (ctypes.c_uint8 * 72)(), (ctypes.c_uint8 * 128)()
            if next_(pointers[2])(address, ctypes.addressof(array)) != 0:
                error = ctypes.CFUNCTYPE(ctypes.c_char_p, P)(pointers[3])(address)
                raise Failed(error.decode())
            if int.from_bytes(bytes(array[64:72]), "little") == 0:
                return batches
            assert next_(pointers[1])(address, ctypes.addressof(schema)) == 0
            batches.append(pa.RecordBatch._import_from_c_device(
                ctypes.addressof(array), ctypes.addressof(schema)))
    finally:
        ctypes.CFUNCTYPE(None, P)(pointers[4])(address)


def read_by_pyarrow(path):
    with open(path, "rb") as file:
        is_file = file.read(6) == b"ARROW1"
    source = pa.OSFile(str(path), "rb")
    if is_file:
        reader = ipc.open_file(source)
        return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)], True
    reader = ipc.open_stream(source)
    return reader.schema, list(reader), False


def same(ours, theirs, what, full=True):
    assert ours.schema.equals(theirs.schema, check_metadata=True), \
        f"{what}: schema\n{ours.schema}\nnot\n{theirs.schema}"
    assert ours.num_rows == theirs.num_rows, f"{what}: {ours.num_rows} rows"
    ours.validate(full=full)
    if ours.equals(theirs):
        return
    for name, a, b in zip(ours.schema.names, ours.columns, theirs.columns):
        if a.equals(b):
            continue
        # NaN is not equal to itself, and dictionaries may hold more than is used.
        assert repr(a.to_pylist()) == repr(b.to_pylist()), f"{what}, column {name!r}: {a} not {b}"


def compare(path, full=True):
    """Every way in against pyarrow; the number of batches. `full`: every value is valid."""
    schema, theirs, is_file = read_by_pyarrow(path)
    with Reader(path) as reader:
        ways = {"host stream": list(reader.host_stream()), "load": reader.loaded()}
        if not is_file:
            ways["pipe"] = piped(path)
        for way, ours in ways.items():
            assert len(ours) == len(theirs), f"{way}: {len(ours)} batches, not {len(theirs)}"
            for index, (a, b) in enumerate(zip(ours, theirs)):
                same(a, b, f"{way}, batch {index}", full)
        names = schema.names
        if len(names) > 1 and len(set(names)) == len(names) and "" not in names:
            # Every other column, from the last to the first, of the batches but the first one.
            chosen = names[::-2]
            first = 1 if len(theirs) > 1 else 0
            some = reader.loaded(selection(chosen, first))
            for a, b in zip(some, theirs[first:], strict=True):
                same(a, b.select(chosen), "chosen columns", full)
    return len(theirs)


# Damaged files of which pyarrow looks at less: a unit that does not exist.
STRICTER = {"clusterfuzz-testcase-minimized-arrow-ipc-stream-fuzz-5718685113384960"}


def corpus():
    compared = refused = failed = 0
    for folder, _, names in sorted(os.walk(FOLDER)):
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith((".md", ".gz", ".json", ".zip", ".py", ".parquet", ".csv")):
                continue
            # Dates there are no whole days, which pyarrow reads and does not call valid.
            full = "generated_datetime" not in name
            try:
                _, theirs, _ = read_by_pyarrow(path)
                for batch in theirs:
                    batch.validate(full=full)
                why = "big-endian" if "bigendian" in path else None
            except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
                why = str(error).splitlines()[0][:100]
            try:
                if why is None:
                    compare(path, full)
                    compared += 1
                    continue
                # What pyarrow does not read or does not call valid, we may refuse.
                with Reader(path) as reader:
                    count = len(reader.loaded())
                print(f"read only by us, {count} batches: {path} ({why})")
                failed += why == "big-endian"
            except (Failed, AssertionError, pa.ArrowException) as error:
                if why is None and name not in STRICTER:
                    print(f"FAILED {path}: {error}")
                    failed += 1
                    continue
                refused += 1
                if "--verbose" in sys.argv:
                    print(f"refused {path}: {error}\n   pyarrow: {why}")
    return compared, refused, failed


# ---- files of pyarrow ----------------------------------------------------------------------

CHANCE = random.Random(7)


def texts(n):
    words = ["", "a", "long enough that no view holds it", "\u00e4\u00f6\u00fc", "\U0001f600" * 5,
             "x" * 300]
    return [CHANCE.choice(words) for _ in range(n)]


def integers(n, low, high):
    return [CHANCE.randint(low, high) for _ in range(n)]


def plain_types():
    """(type, maker of n values)"""
    for bits in (8, 16, 32, 64):
        top = 1 << bits - 1
        yield getattr(pa, f"int{bits}")(), lambda n, t=top: integers(n, -t, t - 1)
        yield getattr(pa, f"uint{bits}")(), lambda n, t=top: integers(n, 0, 2 * t - 1)
    yield pa.null(), lambda n: [None] * n
    yield pa.bool_(), lambda n: [CHANCE.random() < 0.5 for _ in range(n)]
    yield pa.float16(), lambda n: [CHANCE.choice([0.5, -2.0, 1024.0]) for _ in range(n)]
    yield pa.float32(), lambda n: [CHANCE.choice([0.5, -2.0, 1e30]) for _ in range(n)]
    yield pa.float64(), lambda n: [CHANCE.random() for _ in range(n)]
    for make, precision in ((pa.decimal32, 9), (pa.decimal64, 18), (pa.decimal128, 38),
                            (pa.decimal256, 76)):
        yield make(precision, 2), lambda n: [
            decimal.Decimal(CHANCE.randint(-10**8, 10**8)).scaleb(-2) for _ in range(n)]
    yield pa.date32(), lambda n: integers(n, -9000, 9000)
    yield pa.date64(), lambda n: [86_400_000 * v for v in integers(n, -9000, 9000)]
    for unit in ("s", "ms"):
        yield pa.time32(unit), lambda n: integers(n, 0, 86_399)
    for unit in ("us", "ns"):
        yield pa.time64(unit), lambda n: integers(n, 0, 86_399)
    for unit in ("s", "ms", "us", "ns"):
        yield pa.timestamp(unit), lambda n: integers(n, -10**9, 10**9)
        yield pa.timestamp(unit, "Europe/Paris"), lambda n: integers(n, -10**9, 10**9)
        yield pa.duration(unit), lambda n: integers(n, -10**9, 10**9)
    yield pa.month_day_nano_interval(), lambda n: [
        pa.MonthDayNano([v, -v, 1000 * v]) for v in integers(n, -99, 99)]
    for make in (pa.string, pa.large_string, pa.string_view):
        yield make(), texts
    for make in (pa.binary, pa.large_binary, pa.binary_view):
        yield make(), lambda n: [os.urandom(CHANCE.randint(0, 40)) for _ in range(n)]
    yield pa.binary(5), lambda n: [os.urandom(5) for _ in range(n)]
    yield pa.binary(0), lambda n: [b""] * n


def with_nulls(values, share):
    return [None if CHANCE.random() < share else v for v in values]


def nested_types():
    for kind, make in plain_types():
        for wrap in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view):
            yield wrap(kind), lambda n, m=make: [m(CHANCE.randint(0, 3)) for _ in range(n)]
        yield pa.list_(kind, 2), lambda n, m=make: [m(2) for _ in range(n)]
        yield pa.struct([("a", kind), ("b", pa.string())]), lambda n, m=make: [
            {"a": v, "b": t} for v, t in zip(m(n), texts(n))]
        yield pa.map_(pa.string(), kind), lambda n, m=make: [
            list(zip(texts(k), m(k))) for k in integers(n, 0, 2)]
        yield pa.list_(pa.struct([("a", pa.list_(kind))])), lambda n, m=make: [
            [{"a": m(CHANCE.randint(0, 2))} for _ in range(CHANCE.randint(0, 2))]
            for _ in range(n)]
    yield pa.struct([]), lambda n: [{}] * n


def arrays(n, share):
    """(name, array) of every type."""
    for index, (kind, make) in enumerate(itertools.chain(plain_types(), nested_types())):
        yield f"{index} {kind}", pa.array(with_nulls(make(n), share), kind)
    for keys in (pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(),
                 pa.int64(), pa.uint64()):
        for values in (pa.array(["a", "", "ccc"]), pa.array([1.5, None, 3.0]),
                       pa.array([[1], None, [2, 3]], pa.list_(pa.int32()))):
            indices = pa.array(with_nulls(integers(n, 0, 2), share), keys)
            yield f"dictionary {keys} {values.type}", pa.DictionaryArray.from_arrays(
                indices, values)
    inner = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.int8()), pa.array(["x", "y"]))
    outer = pa.array(with_nulls(integers(n, 0, 2), share), pa.int16())
    yield "dictionary of structs of dictionaries", pa.DictionaryArray.from_arrays(
        outer, pa.StructArray.from_arrays([inner], ["d"]))
    yield "list of dictionaries", pa.ListArray.from_arrays(
        pa.array(range(n + 1), pa.int32()), pa.DictionaryArray.from_arrays(
            pa.array(with_nulls(integers(n, 0, 1), share), pa.int8()), pa.array(["p", "q"])))
    ids = integers(n, 0, 1)
    yield "sparse union", pa.UnionArray.from_sparse(
        pa.array(ids, pa.int8()),
        [pa.array(with_nulls(integers(n, 0, 9), share), pa.int32()), pa.array(texts(n))])
    counts = [0, 0]
    offsets = []
    for i in ids:
        offsets.append(counts[i])
        counts[i] += 1
    yield "dense union", pa.UnionArray.from_dense(
        pa.array(ids, pa.int8()), pa.array(offsets, pa.int32()),
        [pa.array(integers(counts[0], 0, 9), pa.int32()), pa.array(texts(counts[1]))],
        type_codes=[0, 1])
    for ends in (pa.int16(), pa.int32(), pa.int64()):
        rises = list(range(2, n, 2)) + [n] if n else []
        yield f"runs {ends}", pa.RunEndEncodedArray.from_arrays(
            pa.array(rises, ends), pa.array(with_nulls(texts(len(rises)), share)))


def options():
    for codec in (None, "lz4", "zstd"):
        yield codec, ipc.IpcWriteOptions(compression=codec)
    yield "legacy", ipc.IpcWriteOptions(use_legacy_format=True,
                                        metadata_version=ipc.MetadataVersion.V4)
    yield "V4", ipc.IpcWriteOptions(metadata_version=ipc.MetadataVersion.V4)


def product(one_of=1):
    compared = failed = 0
    cases = itertools.product(
        options(), (0, 0.3, 1), (0, 1, 7, 1000), (0, 1, 3), ("file", "stream"))
    for number, ((word, option), share, rows, batches, form) in enumerate(cases):
        if one_of > 1 and (number % one_of != number // one_of % one_of or rows > 7):
            continue
        if batches != 1 and rows == 1000 and share == 1:
            continue
        columns = dict(arrays(rows, share))
        if word in ("legacy", "V4"):
            # What came after V4.
            columns = {n: a for n, a in columns.items() if "union" not in n}
        batch = pa.record_batch(list(columns.values()), names=list(columns))
        batch = batch.replace_schema_metadata({"made": "here"})
        path = os.path.join(FOLDER, f"{word}-{share}-{rows}-{batches}.{form}")
        make = ipc.new_file if form == "file" else ipc.new_stream
        with make(path, batch.schema, options=option) as writer:
            for index in range(batches):
                # A part, so that buffers begin in the middle of others.
                writer.write_batch(batch.slice(index * rows // 3))
        try:
            compare(path)
            compared += 1
        except (Failed, AssertionError, pa.ArrowException) as why:
            print(f"FAILED {path}: {why}"[:2000])
            failed += 1
            if failed > 5:
                break
            continue
        os.unlink(path)
    for name, made in changing_dictionaries():
        path = os.path.join(FOLDER, name)
        try:
            made(path)
            compare(path)
            compared += 1
        except (Failed, AssertionError, pa.ArrowException) as why:
            print(f"FAILED {path}: {why}"[:2000])
            failed += 1
    return compared, 0, failed


def changing_dictionaries():
    """Streams whose dictionaries are replaced and added to."""
    for deltas, codec in itertools.product((False, True), (None, "lz4", "zstd")):
        for values in (["a", "b", "c", "d", "e"], [1, None, 3, 4, 5], [[1], [], None, [2, 3], [4]],
                       [{"k": "v"}, None, {"k": None}, {"k": "w"}, {"k": ""}],
                       pa.array(["view", "x" * 40, None, "y" * 50, ""], pa.string_view()),
                       pa.array([True, False, None, True, True])):
            values = values if isinstance(values, pa.Array) else pa.array(values)

            def write(path, values=values, deltas=deltas, codec=codec):
                option = ipc.IpcWriteOptions(emit_dictionary_deltas=deltas, compression=codec)
                kind = pa.dictionary(pa.int8(), values.type)
                with ipc.new_stream(path, pa.schema([("d", kind)]), options=option) as writer:
                    for count in (1, 3, 3, 5, 2):
                        # Growing: a delta. Shrinking: a replacement.
                        keys = pa.array([*range(count), None], pa.int8())
                        array = pa.DictionaryArray.from_arrays(keys, values.slice(0, count))
                        writer.write_batch(pa.record_batch([array], names=["d"]))

            yield f"changing-{deltas}-{codec}-{values.type}.stream".replace("/", "_"), write


# ---- consumers -----------------------------------------------------------------------------

# nanoarrow 0.9.0 crashes on these columns of pyarrow's own making.
NANOARROW_CRASHES = {"v"}


def consumers():
    import duckdb
    import nanoarrow
    import polars

    path = os.path.join(FOLDER, "consumers.arrow")
    batch = pa.record_batch({
        "i": pa.array([1, None, 3], pa.int64()),
        "s": ["a", None, "long enough that no view holds it"],
        "v": pa.array(["a", None, "long enough that no view holds it"], pa.string_view()),
        "l": [[1, 2], None, []],
        "d": pa.array(["x", "y", "x"]).dictionary_encode(),
        "f": [0.5, 1.5, None],
        "t": [{"a": 1}, None, {"a": 3}],
    })
    with ipc.new_file(path, batch.schema) as writer:
        for _ in range(3):
            writer.write_batch(batch)
    wanted = pa.Table.from_batches([batch] * 3).to_pylist()
    passed = 0

    class Exporter:
        """An object of the PyCapsule protocol."""

        def __init__(self, reader):
            self.reader = reader

        def __arrow_c_stream__(self, requested_schema=None):
            place = ctypes.create_string_buffer(40)
            call("gds_arrow_host_stream", self.reader.arrow, None, place)
            self.place = place
            make = ctypes.pythonapi.PyCapsule_New
            make.restype, make.argtypes = ctypes.py_object, [P, ctypes.c_char_p, P]
            return make(ctypes.addressof(place), b"arrow_array_stream", None)

    def by_nanoarrow(exporter):
        # Column by column, without those that it does not give as Python values.
        array = nanoarrow.ArrayStream(exporter).read_all()
        rows = [{} for _ in wanted]
        for at, name in enumerate(batch.schema.names):
            if name in NANOARROW_CRASHES:
                values = [row[name] for row in wanted]
            else:
                values = array.child(at).to_pylist()
            for row, value in zip(rows, values, strict=True):
                row[name] = value
        return rows

    with Reader(path) as reader:
        for name, take in (
            ("pyarrow", lambda e: pa.table(e).to_pylist()),
            ("nanoarrow", by_nanoarrow),
            ("polars", lambda e: polars.DataFrame(e).to_dicts()),
            ("duckdb", lambda e: duckdb.sql("select * from e").to_arrow_table().to_pylist()),
        ):
            rows = take(Exporter(reader))
            assert rows == wanted, f"{name}: {rows} not {wanted}"
            print(f"{name} agrees")
            passed += 1
        # One device array by its capsules, for those that know them.
        columns, place, schema = P(), (ctypes.c_uint8 * 128)(), (ctypes.c_uint8 * 72)()
        call("gds_arrow_load", reader.arrow, None, ctypes.byref(columns))
        call("gds_columns_export", columns, ctypes.c_uint64(1), place)
        call("gds_columns_schema", columns, schema)
        gds.gds_columns_close(columns)
        one = pa.RecordBatch._import_from_c_device(
            ctypes.addressof(place), ctypes.addressof(schema))
        assert one.to_pylist() == batch.to_pylist()
        passed += 1
    return passed, 0, 0


result = {"corpus": corpus, "product": product, "sample": lambda: product(8), "consumers": consumers}[MODE]()
print("compared %d, refused %d, failed %d" % result)
gds.gds_context_close(CONTEXT)
sys.exit(1 if result[2] else 0)
