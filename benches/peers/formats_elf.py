"""The section of formats_bench.py on ELF: sections in device memory, and what inspecting costs."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from ctypes import Structure, byref, c_int32, c_uint32, c_uint64, sizeof

from formats_gds import MIB, Rounds

FOLDERS = ["/usr/lib", "/usr/bin", "/usr/local", "/opt", "/lib", "/usr/libexec"]
SELECT_STORED = 1  # GDS_ELF_SELECT_STORED
THREADS = 8


class PlanInfo(Structure):  # gds_elf_plan_info_t
    _fields_ = [("struct_size", c_uint32), ("plain", c_uint32), ("size_bytes", c_uint64),
                ("file_bytes", c_uint64), ("parts", c_uint64)]  # fmt: skip


def elf_files(folders, most):
    """ELF files below folders, shared libraries first, each file once."""
    libraries, others, seen = [], [], set()
    for folder in folders:
        for where, _, names in os.walk(folder):
            for name in sorted(names):
                path = os.path.join(where, name)
                try:
                    about = os.lstat(path)
                    if not os.path.isfile(path) or os.path.islink(path):
                        continue
                    with open(path, "rb") as file:
                        if file.read(4) != b"\x7fELF":
                            continue
                except OSError:
                    continue
                if (about.st_dev, about.st_ino) in seen or about.st_size > 512 * MIB:
                    continue
                seen.add((about.st_dev, about.st_ino))
                (libraries if ".so" in name else others).append(path)
    return (libraries + others)[:most]


class Loader:
    """Loads every section of files, each file into the part of the buffer of its thread."""

    def __init__(self, gds, files):
        self.gds, self.files, self.skipped = gds, files, 0
        self.room = max((self.plan(path)[1] + 4095) // 4096 * 4096 for path in files)
        self.buffer = gds.alloc(self.room * THREADS)

    def plan(self, path, place=None):
        """Plans a file, and loads it where a place is given; bytes of the file, and of memory."""
        gds, handles = self.gds, []
        file = gds.open(path)
        try:
            elf = gds.made("gds_elf_open", file)
            handles.append(("gds_elf_close", elf))
            plan = gds.made("gds_elf_plan", elf, c_int32(SELECT_STORED), None, c_uint64(0),
                            c_uint64(1 << 30))  # fmt: skip
            handles.append(("gds_elf_plan_destroy", plan))
            info = PlanInfo(sizeof(PlanInfo))
            gds("gds_elf_plan_info", plan, byref(info))
            if place is not None and info.size_bytes:
                gds("gds_elf_plan_read", plan, self.buffer.handle, c_uint64(place), None, None)
            return info.file_bytes, info.size_bytes
        except RuntimeError:
            self.skipped += place is None
            return 0, 0
        finally:
            for close, handle in reversed(handles):
                getattr(gds.library, close)(handle)
            gds.library.gds_file_close(file)

    def load(self, threads):
        left = iter(self.files)

        def work(number):
            return sum(self.plan(path, number * self.room)[0] for path in left_of(left))

        return in_threads(work, threads)


def left_of(shared):
    """What a shared iterator still has; each element goes to one thread."""
    while True:
        element = next(shared, None)
        if element is None:
            return
        yield element


def in_threads(work, threads):
    with ThreadPoolExecutor(max_workers=threads) as pool:
        return sum(pool.map(work, range(threads)))


def plain(files, threads):
    """A plain read of every file into memory that is used again and again."""
    left = iter(files)

    def work(_):
        into, count = memoryview(bytearray(MIB)), 0
        for path in left_of(left):
            with open(path, "rb", buffering=0) as file:
                while part := file.readinto(into):
                    count += part
        return count

    return in_threads(work, threads)


def inspect(bench, files):
    """A process a file for both, as a shell loop would, and readelf with many files a process."""
    program = bench.o.gds
    if not program or not os.path.exists(program):
        bench.note("gds inspect: there is no gds binary (--gds)")
        return
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    wanted = ["-W", "-h", "-S", "-l", "-s", "-n", "-d", "-r"]

    def ours():
        for path in files:
            subprocess.run([program, "-q", "inspect", path], **quiet)

    def readelf():
        for path in files:
            subprocess.run(["readelf", *wanted, path], **quiet)

    def many():
        for at in range(0, len(files), 200):
            subprocess.run(["readelf", *wanted, *files[at : at + 200]], **quiet)

    def nothing():
        for _ in files:
            subprocess.run(["/bin/true"], **quiet)

    title = f"gds inspect, {len(files)} files, a process each"
    rounds = Rounds(bench, title, first=False)
    rounds.add("ours", ours)
    if shutil.which("readelf"):
        rounds.add("readelf -W", readelf)
        rounds.add("readelf -W, 200 files a process", many)
    else:
        bench.note("readelf: not installed")
    rounds.add("starting /bin/true as often", nothing)
    # Figures are files a second.
    medians = rounds.run(len(files) * 1e9)
    ours_rate = medians.pop("ours", None)
    peers = {name: value for name, value in medians.items() if name == "readelf -W"}
    limits = {name: value for name, value in medians.items() if name not in peers}
    bench.row(title, "files/s", ours_rate, peers, limits)


def run(bench):
    files = elf_files(FOLDERS + bench.o.elf_folder, bench.o.elf_files)
    if not files:
        bench.note("ELF: no file found")
        return
    gds = bench.gds
    loader = Loader(gds, files)
    size = sum(os.path.getsize(path) for path in files)
    bench.note(f"ELF: {len(files)} files, {size / 1e9:.2f} GB; {loader.skipped} not loaded")
    limit_name, limit = bench.copy_limit()
    plain(files, THREADS)
    bytes_ = loader.load(THREADS)
    bench.made()
    for threads in (1, THREADS):
        title = f"ELF, all sections of {len(files)} files, {threads} thread{'s' * (threads > 1)}"
        rounds = Rounds(bench, title)
        rounds.add("ours", lambda: loader.load(threads) and None)
        name = f"plain read of the files, {threads} thread{'s' * (threads > 1)}"
        # Its rate is of the bytes of the sections too, so that the two compare.
        rounds.add(name, lambda: plain(files, threads) and None)
        medians = rounds.run(bytes_)
        ours = medians.pop("ours", None)
        targets = [("at least 5 GB/s", 5.0)] if threads > 1 else []
        bench.row(title, "GB/s", ours, {}, {**medians, limit_name: limit}, targets)
    inspect(bench, files)
