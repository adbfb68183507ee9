#!/usr/bin/env python3
"""Writes the files that format_handlers_test.cu loads: make_format_files.py DIR ROWS

Row i of every table: id = 3 i + 1, small = i % 1000, price = i / 2 or null when i % 7 = 3,
flag = i % 3 = 0, name = "name-" and i % 97, or null when i % 11 = 5, text = "row " and i,
day = i % 20000. The kernels of the test know the same.
"""
import json
import struct
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def table(rows):
    i = np.arange(rows, dtype=np.int64)
    return pa.table({
        "id": pa.array(3 * i + 1),
        "small": pa.array((i % 1000).astype(np.int32)),
        "price": pa.array(i / 2, mask=i % 7 == 3),
        "flag": pa.array(i % 3 == 0),
        "name": pa.array([None if n % 11 == 5 else f"name-{n % 97}" for n in range(rows)]),
        "text": pa.array([f"row {n}" for n in range(rows)]),
        "day": pa.array((i % 20000).astype(np.int32), type=pa.date32()),
    })


def nested(rows):
    """Lists and structs of all kinds, with nulls at each level and empty lists."""
    def ints(i):
        return None if i % 9 == 4 else [None if (i + n) % 7 == 0 else i + n for n in range(i % 4)]

    def pair(i):
        return None if i % 8 == 5 else {"a": None if i % 3 == 0 else i / 4, "b": f"b{i % 50}"}

    every = range(rows)
    struct = pa.struct([("a", pa.float64()), ("b", pa.string())])
    return pa.table({
        "ints": pa.array([ints(i) for i in every], pa.list_(pa.int64())),
        "pair": pa.array([pair(i) for i in every], struct),
        "pairs": pa.array([None if i % 6 == 1 else [pair(i + n) for n in range(i % 3)]
                           for i in every], pa.list_(struct)),
        "deep": pa.array([[ints(i + n) for n in range(i % 3)] for i in every],
                         pa.list_(pa.list_(pa.int64()))),
        "map": pa.array([None if i % 5 == 2 else [(f"k{n}", i) for n in range(i % 4)]
                         for i in every], pa.map_(pa.string(), pa.int32())),
        "both": pa.array([None if i % 7 == 6 else {"x": ints(i), "y": i % 2 == 0}
                          for i in every],
                         pa.struct([("x", pa.list_(pa.int64())), ("y", pa.bool_())])),
    })


def main():
    folder, rows = sys.argv[1], int(sys.argv[2])
    data = table(rows)
    # Pages of 64 KiB, so that there are many; row groups that do not end on a multiple of 8.
    common = {"data_page_size": 64 << 10, "row_group_size": rows // 3 + 5}
    for codec in ["none", "snappy", "lz4", "zstd", "gzip"]:
        for version in ["1.0", "2.0"]:
            pq.write_table(data, f"{folder}/dictionary-{codec}-v{version[0]}.parquet",
                           compression=codec, data_page_version=version, **common)
    plain = {"use_dictionary": False}
    pq.write_table(data, f"{folder}/plain-none.parquet", compression="none", **plain, **common)
    pq.write_table(data, f"{folder}/plain-crc.parquet", compression="snappy",
                   write_page_checksum=True, **plain, **common)
    pq.write_table(data, f"{folder}/delta-snappy.parquet", compression="snappy",
                   column_encoding={
                       "id": "DELTA_BINARY_PACKED", "small": "DELTA_BINARY_PACKED",
                       "price": "BYTE_STREAM_SPLIT", "flag": "RLE", "day": "DELTA_BINARY_PACKED",
                       "name": "DELTA_BYTE_ARRAY", "text": "DELTA_LENGTH_BYTE_ARRAY",
                   }, data_page_version="2.0", **plain, **common)
    for codec in [None, "lz4", "zstd"]:
        options = pa.ipc.IpcWriteOptions(compression=codec)
        with pa.OSFile(f"{folder}/table-{codec}.arrow", "wb") as out:
            with pa.ipc.new_file(out, data.schema, options=options) as writer:
                writer.write_table(data, max_chunksize=rows // 3 + 5)
    with pa.OSFile(f"{folder}/table.arrows", "wb") as out:
        with pa.ipc.new_stream(out, data.schema) as writer:
            writer.write_table(data, max_chunksize=rows // 3 + 5)
    # Not among the tables that most cases load.
    for version in ["1.0", "2.0"]:
        pq.write_table(nested(rows // 5), f"{folder}/nested-v{version[0]}.pq",
                       compression="snappy", data_page_version=version,
                       data_page_size=64 << 10, row_group_size=rows // 12 + 5)
    tensors = {"id": data["id"].to_numpy(), "day": np.arange(rows, dtype=np.float32)}
    header, offset = {}, 0
    for name, values in tensors.items():
        kind = {"int64": "I64", "float32": "F32"}[str(values.dtype)]
        end = offset + values.nbytes
        header[name] = {"dtype": kind, "shape": [rows], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with open(f"{folder}/model.safetensors", "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for values in tensors.values():
            out.write(values.tobytes())


main()
