"""Writes Parquet files for the tests, and a list of them: path, JSON for compare.py.

make.py product FOLDER [full]: codecs x encodings x page versions x nulls, with page index, CRC,
encryption and nesting; make.py writers FOLDER: DuckDB and tpchgen-cli.
"""

import datetime
import decimal
import itertools
import json
import os
import random
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

ROWS = 700
KEY = bytes(range(16))
KEY_256 = bytes(range(32))


def columns(nulls, seed):
    """A column of each kind; nulls: 0 none, 1 some, 2 all."""
    r = random.Random(seed)

    def make(value):
        def one(i):
            if nulls == 2 or (nulls == 1 and r.random() < 0.3):
                return None
            return value(i)

        return [one(i) for i in range(ROWS)]

    def word(i):
        return "w" * (i % 7) + str(r.randrange(40)) + ("é" if i % 5 == 0 else "")

    def bits(n):
        return r.getrandbits(n) - (1 << (n - 1))

    def number(i):
        special = [0.0, -0.0, float("inf"), 1e-300]
        return special[i % 4] if i % 11 == 0 else r.gauss(0, 1e3)

    day = datetime.date(2000, 1, 1)
    second = datetime.datetime(1999, 12, 31, 23, 59, 59, 123456)
    made = {
        "bool": (pa.bool_(), lambda i: r.random() < 0.4),
        "i8": (pa.int8(), lambda i: bits(8)),
        "u16": (pa.uint16(), lambda i: r.getrandbits(16)),
        "i32": (pa.int32(), lambda i: bits(32) if i % 3 else i),
        "u32": (pa.uint32(), lambda i: r.getrandbits(32)),
        "i64": (pa.int64(), lambda i: bits(64) if i % 3 else i * 1000),
        "u64": (pa.uint64(), lambda i: r.getrandbits(64)),
        "f32": (pa.float32(), lambda i: float(r.randrange(100)) / 4),
        "f64": (pa.float64(), number),
        "f16": (pa.float16(), lambda i: float(r.randrange(100)) / 4),
        "str": (pa.string(), word),
        "bin": (pa.binary(), lambda i: bytes(r.randrange(256) for _ in range(i % 9))),
        "large": (pa.large_string(), word),
        "flba": (pa.binary(5), lambda i: b"abcd" + bytes([r.randrange(4)])),
        "dec32": (pa.decimal128(7, 2), lambda i: decimal.Decimal(r.randrange(-9999, 9999)) / 100),
        "dec": (pa.decimal128(30, 3), lambda i: decimal.Decimal(bits(80)).scaleb(-3)),
        "date": (pa.date32(), lambda i: day + datetime.timedelta(days=r.randrange(9999))),
        "ts": (pa.timestamp("us"), lambda i: second + datetime.timedelta(seconds=i)),
        "tz": (pa.timestamp("ms", tz="UTC"), lambda i: i * 1001),
        "time": (pa.time64("us"), lambda i: datetime.time(i % 24, i % 60, 3, i)),
        "list": (pa.list_(pa.int32()), lambda i: [None if x == 1 else x for x in range(i % 4)]),
        "lists": (pa.list_(pa.list_(pa.string())), lambda i: [[word(x)] * (x % 3) for x in range(i % 3)]),
        "struct": (
            pa.struct([("x", pa.float64()), ("y", pa.list_(pa.string()))]),
            lambda i: {"x": None if i % 5 == 0 else i / 2, "y": None if i % 7 == 0 else [word(i)] * (i % 3)},
        ),
        "structs": (
            pa.list_(pa.struct([("a", pa.int64()), ("b", pa.string())])),
            lambda i: [None if x == 2 else {"a": x, "b": word(x)} for x in range(i % 4)],
        ),
        "map": (pa.map_(pa.string(), pa.int32()), lambda i: [(word(x), x) for x in range(i % 3)]),
        "dict": (pa.dictionary(pa.int32(), pa.string()), lambda i: str(r.randrange(9))),
    }
    arrays = {}
    for name, (kind, value) in made.items():
        if pa.types.is_dictionary(kind):
            arrays[name] = pa.array(make(value), pa.string()).cast(kind)
        else:
            arrays[name] = pa.array(make(value), kind)
    if nulls == 0:
        fields = [pa.field(n, a.type, nullable=n not in ("i32", "f64", "str")) for n, a in arrays.items()]
        return pa.table(list(arrays.values()), pa.schema(fields))
    return pa.table(arrays)


INTS = ["i8", "u16", "i32", "u32", "i64", "u64", "dec32", "date", "ts", "tz", "time"]
TEXTS = ["str", "bin", "large"]
FIXED = ["flba", "dec", "f16"]
ENCODINGS = {
    "dict": None,
    "PLAIN": {},
    "DELTA_BINARY_PACKED": {name: "DELTA_BINARY_PACKED" for name in INTS},
    "DELTA_LENGTH_BYTE_ARRAY": {name: "DELTA_LENGTH_BYTE_ARRAY" for name in TEXTS},
    "DELTA_BYTE_ARRAY": {name: "DELTA_BYTE_ARRAY" for name in TEXTS + FIXED},
    "BYTE_STREAM_SPLIT": {name: "BYTE_STREAM_SPLIT" for name in ["f32", "f64", "i32", "i64"] + FIXED},
    "RLE": {"bool": "RLE"},
}
CODECS = ["NONE", "SNAPPY", "GZIP", "BROTLI", "ZSTD", "LZ4"]
SECRETS = ["none", "gcm", "ctr", "plain-gcm", "plain-ctr", "gcm-256", "aad"]


def secret(name):
    if name == "none":
        return None, {}
    key = KEY_256 if name.endswith("256") else KEY
    algorithm = "AES_GCM_CTR_V1" if name.endswith("ctr") else "AES_GCM_V1"
    more = {}
    how = {"key": key.hex()}
    if name == "aad":
        more = {"aad_prefix": b"prefix", "store_aad_prefix": False}
        how["aad"] = "prefix"
    properties = pe.create_encryption_properties(
        key, encryption_algorithm=algorithm, plaintext_footer=name.startswith("plain"), **more
    )
    return properties, how


def write(folder, number, table, codec, encoding, version, index, crc, hidden):
    path = os.path.join(folder, f"{number}-{codec}-{encoding}-v{version[0]}-{hidden}.parquet")
    properties, how = secret(hidden)
    columns = ENCODINGS[encoding]
    more = {} if columns is None else {"column_encoding": columns or None}
    if columns is None:
        more["use_dictionary"] = True
    else:
        more["use_dictionary"] = False
    pq.write_table(
        table,
        path,
        compression=codec,
        data_page_version=version,
        row_group_size=300,
        data_page_size=1024,
        write_batch_size=50,
        store_decimal_as_integer=True,
        write_page_index=index,
        write_page_checksum=crc,
        encryption_properties=properties,
        **more,
    )
    return path, how


def product(folder, full):
    tables = [columns(nulls, 7 + nulls) for nulls in range(3)]
    number = 0
    cases = itertools.product(CODECS, ENCODINGS, ["1.0", "2.0"], range(3))
    for codec, encoding, version, nulls in cases:
        if full:
            rest = itertools.product([False, True], [False, True], SECRETS)
        else:
            rest = [(number % 2 == 0, number % 3 == 0, SECRETS[number * 5 % len(SECRETS)])]
        for index, crc, hidden in rest:
            made = write(folder, number, tables[nulls], codec, encoding, version, index, crc, hidden)
            print(made[0], json.dumps(made[1]), sep="\t")
            number += 1
    if not full:
        for hidden, version, index in itertools.product(SECRETS, ["1.0", "2.0"], [False, True]):
            made = write(folder, number, tables[1], "SNAPPY", "dict", version, index, True, hidden)
            print(made[0], json.dumps(made[1]), sep="\t")
            number += 1


def writers(folder):
    scale = os.environ.get("GDS_TPCH_SCALE", "0.002")
    tool = os.path.join(os.path.dirname(sys.executable), "tpchgen-cli")
    if os.path.exists(tool) or shutil.which("tpchgen-cli"):
        tool = tool if os.path.exists(tool) else shutil.which("tpchgen-cli")
        subprocess.run([tool, "parquet", "-s", scale, "-o", folder], check=True, stdout=subprocess.DEVNULL)
    try:
        import duckdb
    except ImportError:
        duckdb = None
    if duckdb:
        connection = duckdb.connect()
        connection.execute(
            "create table t as select i, i * 0.5 as f, 'name ' || (i % 97) as s, "
            "case when i % 3 = 0 then null else i end as n, [i, null, i + 1] as l, "
            "{'a': i, 'b': 's' || i} as st, map {'k' || (i % 5): i} as m, "
            "date '2020-01-01' + (i % 1000)::int as d, (i % 2 = 0) as b, "
            "i::decimal(12, 3) as dec, (i::hugeint * 1000000007)::decimal(38, 0) as wide, "
            "timestamp '2021-02-03 04:05:06.789' + interval (i) second as ts "
            "from range(5000) r(i)"
        )
        for codec in ["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4_raw"]:
            for version in ["V1", "V2"]:
                path = os.path.join(folder, f"duckdb-{codec}-{version}.parquet")
                connection.execute(
                    f"copy t to '{path}' (format parquet, compression '{codec}', "
                    f"parquet_version '{version}', row_group_size 2048)"
                )
    for name in sorted(os.listdir(folder)):
        if name.endswith(".parquet"):
            print(os.path.join(folder, name), "{}", sep="\t")


def main():
    what, folder = sys.argv[1:3]
    if what == "product":
        product(folder, len(sys.argv) > 3 and sys.argv[3] == "full")
    else:
        writers(folder)


main()
