"""Files of scripts/bench-gpu: made of random bytes, and put into the page cache or out of it."""

import ctypes
import mmap
import os
import threading
import time

MIB = 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)


def parse_size(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    unit = units.get(text[-1].upper())
    return int(text[:-1]) * unit if unit else int(text)


def cached_pages(path):
    """Pages of the file that are in the page cache, and pages in all."""
    size = os.path.getsize(path)
    pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
    fd = os.open(path, os.O_RDONLY)
    try:
        span, found = (ctypes.c_uint64 * 2)(0, size), (ctypes.c_uint64 * 5)()
        if LIBC.syscall(451, fd, ctypes.byref(span), ctypes.byref(found), 0) == 0:
            return found[0], pages
        LIBC.mmap.restype = ctypes.c_void_p
        address = LIBC.mmap(None, ctypes.c_size_t(size), 1, 1, fd, ctypes.c_long(0))
        vector = (ctypes.c_ubyte * pages)()
        pointer = ctypes.c_void_p(address)
        LIBC.mincore(pointer, ctypes.c_size_t(size), vector)
        LIBC.munmap(pointer, ctypes.c_size_t(size))
        return sum(byte & 1 for byte in vector), pages
    finally:
        os.close(fd)


def make_cold(path):
    for _ in range(5):
        fd = os.open(path, os.O_RDWR)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        cached, pages = cached_pages(path)
        if cached <= pages // 1000:
            return
        time.sleep(0.2)
    raise SystemExit(f"{path}: {cached} of {pages} pages stay in the page cache")


def in_parts(size, count, work):
    step = (size // count + MIB - 1) // MIB * MIB
    parts = [(at, min(step, size - at)) for at in range(0, size, step)]
    threads = [threading.Thread(target=work, args=part) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def make_warm(path):
    cached, pages = cached_pages(path)
    if cached == pages:
        return

    def read(begin, count):
        buffer = bytearray(4 * MIB)
        with open(path, "rb", buffering=0) as file:
            file.seek(begin)
            while count > 0:
                count -= file.readinto(buffer) or count

    in_parts(os.path.getsize(path), 8, read)
    cached, pages = cached_pages(path)
    if cached < pages:
        raise SystemExit(f"{path}: only {cached} of {pages} pages are in the page cache")


def make_file(path, size):
    """Random bytes, made by several threads."""
    with open(path, "wb"):
        os.truncate(path, size)

    def write(begin, count):
        fd = os.open(path, os.O_WRONLY)
        for at in range(begin, begin + count, 4 * MIB):
            os.pwrite(fd, os.urandom(min(4 * MIB, begin + count - at)), at)
        os.close(fd)

    in_parts(size, 8, write)
    make_cold(path)
