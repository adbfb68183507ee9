"""Compares Arrow files with what pyarrow reads of Parquet files.

The list names a pair a line: the Parquet file, the Arrow file, and perhaps JSON: "key" (hex),
"aad", "columns", "rows" (ranges), "groups".
"""

import json
import sys
import uuid

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq


def plain(value):
    """A value that compares as people expect: NaN equals NaN, +0 is not -0."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, uuid.UUID):
        return value.bytes
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def storage(column):
    if isinstance(column.type, pa.BaseExtensionType):
        return pa.chunked_array([c.storage for c in column.chunks], column.type.storage_type)
    return column


def values(column):
    column = storage(column)
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        column = column.cast(pa.int64())
    try:
        return plain(column.to_pylist())
    except Exception:
        if pa.types.is_nested(column.type) or not hasattr(column, "cast"):
            raise
        return plain(column.cast(pa.int64()).to_pylist())


def expected_of(path, how):
    more = {}
    if "key" in how:
        import pyarrow.parquet.encryption as pe

        aad = how.get("aad")
        more["decryption_properties"] = pe.create_decryption_properties(
            bytes.fromhex(how["key"]), aad_prefix=aad.encode() if aad else None
        )
    file = pq.ParquetFile(path, page_checksum_verification=False, **more)
    columns = how.get("columns")
    groups = how.get("groups")
    if groups is None:
        table = file.read(columns=columns)
    else:
        table = file.read_row_groups(groups, columns=columns)
    if "rows" in how:
        parts = [table.slice(a, b - a) for a, b in how["rows"]]
        table = pa.concat_tables(parts)
    if columns:
        names = []
        for name in columns:
            root = name.split(".")[0]
            if root not in names:
                names.append(root)
        table = table.select(names)
    return table


def difference(path, arrow, how):
    expected = expected_of(path, how)
    with pa.memory_map(arrow) as source:
        ours = pa.ipc.open_file(source).read_all()
        if ours.column_names != expected.column_names:
            return f"columns {ours.column_names} and {expected.column_names}"
        if ours.num_rows != expected.num_rows:
            return f"{ours.num_rows} rows and {expected.num_rows}"
        for number, name in enumerate(ours.column_names):
            one, other = ours.column(number), expected.column(number)
            if one.type == other.type and one.equals(other):
                continue
            a, b = values(one), values(other)
            if a != b:
                at = next(i for i in range(len(a)) if a[i] != b[i])
                return f"{name}[{at}] ({one.type}, {other.type}): {a[at]!r} and {b[at]!r}"
    return None


def main():
    compared = 0
    wrong = []
    unreadable = []
    for line in open(sys.argv[1], encoding="utf-8"):
        path, arrow, *rest = line.rstrip("\n").split("\t")
        how = json.loads(rest[0]) if rest else {}
        try:
            found = difference(path, arrow, how)
        except (pa.ArrowException, OSError, NotImplementedError) as error:
            unreadable.append(f"{path}: {error}")
            continue
        compared += 1
        if found:
            wrong.append(f"{path} {how}: {found}")
    print(f"{compared} compared, {len(unreadable)} that pyarrow does not read")
    print("\n".join("unreadable " + text for text in unreadable))
    print("\n".join("DIFFERENT " + text for text in wrong))
    sys.exit(1 if wrong else 0)


main()
