"""What the sections of formats_bench.py share: the library by ctypes, device memory, rounds.

Without a CUDA device the library's device is the host, and so is memory() and everything copied.
"""

import ctypes
import os
import resource
import statistics
import sys
import time
from ctypes import POINTER, byref, c_char_p, c_int32, c_uint32, c_uint64, c_void_p

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../scripts"))
from bench_files import make_cold, make_warm  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30


class DeviceInfo(ctypes.Structure):  # gds_device_info_t
    _fields_ = [("struct_size", c_uint32), ("ordinal", c_int32), ("memory_bytes", c_uint64),
                ("driver_version", c_int32), ("compute_capability", c_int32),
                ("register_read_only", c_uint32), ("stream_order", c_uint32),
                ("name", ctypes.c_char * 128)]  # fmt: skip


class ColumnsInfo(ctypes.Structure):  # gds_columns_info_t
    _fields_ = [("struct_size", c_uint32), ("columns", c_uint32), ("batches", c_uint64),
                ("rows", c_uint64), ("bytes", c_uint64)]  # fmt: skip


class ColumnBuffer(ctypes.Structure):  # gds_column_buffer_t
    _fields_ = [("address", c_uint64), ("size", c_uint64)]


class ArrowSelection(ctypes.Structure):  # gds_arrow_selection_t
    _fields_ = [("struct_size", c_uint32), ("validate", c_int32),
                ("columns", POINTER(c_char_p)), ("column_count", c_uint64),
                ("first_batch", c_uint64), ("batch_count", c_uint64),
                ("ahead", c_uint32), ("reserved", c_uint32), ("options", c_void_p)]  # fmt: skip


class ParquetSelection(ctypes.Structure):  # gds_parquet_selection_t
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("columns", POINTER(c_char_p)), ("column_count", c_uint64),
                ("row_groups", c_void_p), ("row_group_count", c_uint64),
                ("rows", c_void_p), ("row_range_count", c_uint64),
                ("conditions", c_void_p), ("condition_count", c_uint64),
                ("memory_limit", c_uint64)]  # fmt: skip


class ParquetOutline(ctypes.Structure):  # gds_parquet_outline_t
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32), ("rows", c_uint64),
                ("row_groups", c_uint64), ("read_bytes", c_uint64)]  # fmt: skip


class Gds:
    """The library with a context; a call that fails raises with the library's own words."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.gds_last_error_message.restype = c_char_p
        self.context = self.made("gds_context_open", None)
        info = DeviceInfo(ctypes.sizeof(DeviceInfo))
        self("gds_context_device", self.context, byref(info))
        self.on_gpu, self.ordinal = info.ordinal >= 0, info.ordinal
        self.device = info.name.decode() if self.on_gpu else "the host (no GPU: host memory)"

    def __call__(self, function, *arguments):
        if getattr(self.library, function)(*arguments):
            words = self.library.gds_last_error_message().decode()
            raise RuntimeError(f"{function}: {words}")

    def made(self, function, *arguments):
        out = c_void_p()
        self(function, *arguments, byref(out))
        return out

    def open(self, path):
        return self.made("gds_file_open", self.context, os.fsencode(path), c_uint32(1))

    def alloc(self, size):
        return Buffer(self, size)

    def read(self, file, buffer, size):
        """The whole of a file into a buffer; closes the file."""
        none, moved = c_uint64(0), c_uint64()
        self("gds_read", file, none, buffer.handle, none, c_uint64(size), byref(moved))
        self.library.gds_file_close(file)

    def columns(self, path, opener, loader, selection):
        """Opens a file of columns, loads what is selected, and closes all but the columns."""
        file = self.open(path)
        extra = (None,) if opener == "gds_parquet_open" else ()
        reader = None
        try:
            reader = self.made(opener, file, *extra)
            return self.made(loader, reader, byref(selection) if selection else None)
        finally:
            if reader:
                getattr(self.library, opener.replace("_open", "_close"))(reader)
            self.library.gds_file_close(file)

    def parquet(self, path, names=None):
        chosen = selection_of(ParquetSelection, names)
        return self.columns(path, "gds_parquet_open", "gds_parquet_load", chosen)

    def arrow(self, path, names=None):
        chosen = selection_of(ArrowSelection, names)
        return self.columns(path, "gds_arrow_open", "gds_arrow_load", chosen)

    def info(self, columns):
        info = ColumnsInfo(ctypes.sizeof(ColumnsInfo))
        self("gds_columns_info", columns, byref(info))
        return info

    def buffer_of(self, columns, column, buffer, batch=0):
        found, path = ColumnBuffer(), (c_uint32 * 1)(column)
        self("gds_columns_buffer", columns, c_uint64(batch), path, c_uint64(1),
             c_uint32(buffer), byref(found))  # fmt: skip
        return found

    def pages_bytes(self, path, names=None):
        """Bytes of pages that loading these columns reads."""
        file = self.open(path)
        parquet = self.made("gds_parquet_open", file, None)
        outline = ParquetOutline(ctypes.sizeof(ParquetOutline))
        chosen = selection_of(ParquetSelection, names)
        self("gds_parquet_outline", parquet, byref(chosen), byref(outline))
        self.library.gds_parquet_close(parquet)
        self.library.gds_file_close(file)
        return outline.read_bytes


class Buffer:
    """Device memory of the library, freed when it is dropped."""

    def __init__(self, gds, size):
        self.gds = gds
        self.handle = gds.made("gds_buffer_alloc", gds.context, c_int32(1), c_uint64(size))

    def __del__(self):
        self.gds.library.gds_buffer_free(self.handle)


def selection_of(kind, names):
    chosen = kind(ctypes.sizeof(kind))
    if names:
        chosen.columns = (c_char_p * len(names))(*[name.encode() for name in names])
        chosen.column_count = len(names)
    return chosen


# ---- memory --------------------------------------------------------------------------------


class Memory:
    """Copies to and from the device, through torch where it has the GPU, else the driver."""

    def __init__(self, gds):
        self.gds, self.torch = gds, None
        if not gds.on_gpu:
            return
        try:
            import torch
            if torch.cuda.is_available():
                torch.zeros(1, device=f"cuda:{gds.ordinal}")
                self.torch = torch
        except ImportError:
            pass
        self.driver = ctypes.CDLL("libcuda.so.1")
        context, device = c_void_p(), c_int32()
        self.check(self.driver.cuInit(0))
        self.check(self.driver.cuDeviceGet(byref(device), gds.ordinal))
        self.check(self.driver.cuDevicePrimaryCtxRetain(byref(context), device))
        self.check(self.driver.cuCtxSetCurrent(context))

    @staticmethod
    def check(status):
        if status:
            raise RuntimeError(f"the CUDA driver answered {status}")

    def read(self, address, size):
        """Bytes of device memory."""
        if not self.gds.on_gpu:
            return ctypes.string_at(address, size)
        into = ctypes.create_string_buffer(size)
        self.check(self.driver.cuMemcpyDtoH_v2(into, c_uint64(address), ctypes.c_size_t(size)))
        return into.raw

    def copy_table(self, table):
        """Every buffer of a pyarrow table into device memory; what holds it there."""
        held = []
        for column in table.columns:
            for chunk in column.chunks:
                for buffer in chunk.buffers():
                    if buffer is not None and buffer.size:
                        held.append(self.copy(buffer))
        if self.torch:
            self.torch.cuda.synchronize()
        return held

    def copy(self, buffer):
        if not self.gds.on_gpu:
            return None  # It is in host memory, which is the device.
        if self.torch:
            torch = self.torch
            # By its address: torch refuses buffers that may not be written to.
            bytes_ = (ctypes.c_char * buffer.size).from_address(buffer.address)
            return torch.frombuffer(bytes_, dtype=torch.uint8).to(f"cuda:{self.gds.ordinal}")
        address = c_uint64()
        size = ctypes.c_size_t(buffer.size)
        self.check(self.driver.cuMemAlloc_v2(byref(address), size))
        self.check(self.driver.cuMemcpyHtoD_v2(address, c_void_p(buffer.address), size))
        return Freed(self.driver, address)

    def forget(self):
        """Gives the memory that peers keep back, so that nobody's load begins with it."""
        if self.torch:
            self.torch.cuda.synchronize()
            self.torch.cuda.empty_cache()

    def limit(self, size=GIB):
        """GB/s of copies from pinned memory to the device; on the host of a plain copy."""
        if not self.gds.on_gpu:
            source, target = bytearray(os.urandom(MIB) * (size // 4 // MIB)), bytearray(size // 4)
            a, b = (ctypes.c_char * len(source)).from_buffer(source), bytearray_address(target)
            return "memcpy, one thread", max(
                timed(lambda: ctypes.memmove(b, a, len(source)), len(source)) for _ in range(3)
            )
        host, device = c_void_p(), c_uint64()
        count = ctypes.c_size_t(size)
        self.check(self.driver.cuMemHostAlloc(byref(host), count, 0))
        self.check(self.driver.cuMemAlloc_v2(byref(device), count))
        ctypes.memset(host, 1, size)
        copy = lambda: self.check(self.driver.cuMemcpyHtoD_v2(device, host, count))  # noqa: E731
        copy()
        best = max(timed(copy, size) for _ in range(5))
        self.driver.cuMemFree_v2(device)
        self.driver.cuMemFreeHost(host)
        return "pinned copy to the device", best


class Freed:
    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def __del__(self):
        self.driver.cuMemFree_v2(self.address)


def bytearray_address(array):
    return ctypes.addressof((ctypes.c_char * len(array)).from_buffer(array))


def timed(work, size):
    began = time.perf_counter()
    work()
    return size / (time.perf_counter() - began) / 1e9


# ---- rounds --------------------------------------------------------------------------------


class Rounds:
    """Runs contestants in turn, each from the same state; medians by name.

    Another one begins each round: a disk that gives its best to who comes first, or after a pause,
    gives it to all.
    """

    def __init__(self, bench, title, paths=(), cold=False, first=True):
        """`first`: a round that is not counted, in which pools and modules are made."""
        self.bench, self.title, self.paths = bench, title, paths
        self.cold, self.first = cold, first and not cold
        self.contestants, self.failed = [], {}

    def add(self, name, work, once=False):
        """`work` returns what it holds, which is dropped outside of the time."""
        self.contestants.append((name, work, once))

    def prepare(self):
        for path in self.paths:
            (make_cold if self.cold else make_warm)(path)
        self.bench.memory.forget()

    def run(self, size):
        """GB/s of `size` bytes, the median of the rounds; all figures go into the details."""
        figures, cores = {}, {}
        for number in range(self.bench.o.runs + 1):
            warming = number == 0
            if (warming and not self.first) or (number > 1 and self.bench.is_late()):
                continue
            begin = number % len(self.contestants)
            for name, work, once in self.contestants[begin:] + self.contestants[:begin]:
                if name in self.failed or (once and number != 1):
                    continue
                self.prepare()
                before, began = used(), time.perf_counter()
                try:
                    held = work()
                except Exception as problem:  # A peer's failure is a result, not ours.
                    self.failed[name] = str(problem).splitlines()[0][:160] if str(problem) else "?"
                    self.bench.note(f"{self.title}: {name} failed: {self.failed[name]}")
                    continue
                seconds = time.perf_counter() - began
                del held
                if not warming:
                    figures.setdefault(name, []).append(size / seconds / 1e9)
                    cores.setdefault(name, []).append((used() - before) / seconds)
        for name, values in figures.items():
            busy = statistics.median(cores[name])
            self.bench.detail(self.title, name, values, busy)
        if self.bench.is_late():
            self.bench.note(f"{self.title}: fewer rounds than asked for, the time was used up")
        return {name: statistics.median(values) for name, values in figures.items()}


def used():
    """Seconds of processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def direct_read(paths, threads=4, block=4 * MIB):
    """Reads files with O_DIRECT into memory of this process: the limit of cold loads."""
    import mmap
    import threading
    parts = [(path, at) for path in paths for at in range(0, os.path.getsize(path), block)]
    lock = threading.Lock()

    def work():
        into = mmap.mmap(-1, block)
        while True:
            with lock:
                if not parts:
                    return
                path, at = parts.pop(0)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
            os.preadv(fd, [into], at)
            os.close(fd)

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
