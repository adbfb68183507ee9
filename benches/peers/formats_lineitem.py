"""TPC-H's lineitem without TPC-H's generator, for formats_bench.py where tpchgen-cli is not there.

The same columns and types, and values in the ranges and of the distributions of the specification
(TPC-H 4.2.3): prices, quantities and dates are uniform, flags follow the dates, comments are words
of its grammar. Keys are sparse as there; parts and suppliers are drawn independently of each other.
Rows are not those of dbgen, so query results differ.
"""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 6_001_215  # of scale factor 1
GROUP = 1 << 20
MODES = ["REG AIR", "AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "FOB"]
INSTRUCTIONS = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"]
WORDS = (
    "furiously slyly carefully blithely quickly fluffily final ironic special pending regular "
    "express bold even silent unusual foxes ideas theodolites pinto beans instructions "
    "dependencies excuses platelets asymptotes courts dolphins sleep wake are cajole haggle nag "
    "use boost affix detect integrate above across after against along among the deposits packages "
    "accounts requests"
).split()
START, CURRENT = 8035, 9298  # 1992-01-01 and 1995-06-17, days since 1970


def decimals(cents):
    """decimal(15, 2) of integers."""
    wide = np.empty((len(cents), 2), dtype=np.int64)
    wide[:, 0], wide[:, 1] = cents, cents >> 63
    kind = pa.decimal128(15, 2)
    return pa.Array.from_buffers(kind, len(cents), [None, pa.py_buffer(wide)])


def chosen(random, values, count):
    return pa.array(values).take(pa.array(random.integers(0, len(values), count)))


def days(values):
    return pa.array(values.astype(np.int32), type=pa.date32())


def comments(random, count):
    """10 to 43 characters, as the specification has them, cut out of texts made once."""
    whole = " ".join(WORDS[i] for i in random.integers(0, len(WORDS), 1 << 15))
    starts = random.integers(0, len(whole) - 44, 1 << 16)
    sizes = random.integers(10, 44, 1 << 16)
    texts = [whole[at : at + size] for at, size in zip(starts, sizes)]
    return chosen(random, texts, count)


def rows(random, first, count, scale):
    """Rows of orders that begin with number `first`; four lines an order on average."""
    lines = random.integers(1, 8, count)
    order = np.repeat(np.arange(first, first + count), lines)[:count]
    number = np.arange(count) - np.repeat(np.cumsum(lines) - lines, lines)[:count] + 1
    part = random.integers(1, int(200_000 * scale) + 2, count)
    supplier = random.integers(1, int(10_000 * scale) + 2, count)
    quantity = random.integers(1, 51, count)
    price = 90_000 + (part // 10) % 20_001 + 100 * (part % 1000)
    ship = np.repeat(START + random.integers(0, 2406, count), lines)[:count]
    ship = ship + random.integers(1, 122, count)
    receipt = ship + random.integers(1, 31, count)
    returned = np.where(receipt <= CURRENT, random.integers(0, 2, count), 2)
    return pa.table({
        "l_orderkey": pa.array((order // 8) * 32 + order % 8 + 1),
        "l_partkey": pa.array(part),
        "l_suppkey": pa.array(supplier),
        "l_linenumber": pa.array(number.astype(np.int32)),
        "l_quantity": decimals(quantity * 100),
        "l_extendedprice": decimals(quantity * price),
        "l_discount": decimals(random.integers(0, 11, count)),
        "l_tax": decimals(random.integers(0, 9, count)),
        "l_returnflag": pa.array(["R", "A", "N"]).take(pa.array(returned)),
        "l_linestatus": pa.array(["F", "O"]).take(pa.array((ship > CURRENT).astype(int))),
        "l_shipdate": days(ship),
        "l_commitdate": days(ship + random.integers(-91, 91, count)),
        "l_receiptdate": days(receipt),
        "l_shipinstruct": chosen(random, INSTRUCTIONS, count),
        "l_shipmode": chosen(random, MODES, count),
        "l_comment": comments(random, count),
    })  # fmt: skip


def make(path, scale):
    """Writes a file as pyarrow writes it by default: snappy, dictionaries, 1 Mi rows a group."""
    random = np.random.default_rng(1)
    left, first, writer = int(ROWS * scale), 0, None
    while left > 0:
        part = rows(random, first, min(GROUP, left), scale)
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
        left, first = left - part.num_rows, first + part.num_rows
    writer.close()
