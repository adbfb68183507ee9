#!/usr/bin/env python3
"""Reads a file through libgds_rs.so with nothing but ctypes.

    python_ctypes.py [FILE]        without FILE it reads the Python program itself

The bytes land in a CuPy array in GPU memory when CuPy and a GPU are there, else in a numpy array,
else in a ctypes buffer; they are compared with a plain read. GDS_EXAMPLE_BUFFER=cupy, numpy or
ctypes insists on one. GDS_RS_LIBRARY is the path of the library; without it the loader looks for
its name. Exit status: 0 verified, 1 wrong, 77 skipped because something is missing.
"""

import ctypes
import os
import sys

SKIPPED = 77
GDS_STATUS_OK = 0
GDS_FILE_READ = 1
HEADER_VERSION = 100  # GDS_RS_VERSION_NUMBER of the header that this follows: 0.1.0

POINTER = ctypes.c_void_p
U64 = ctypes.c_uint64

# Name: (result type, argument types). Handles are opaque pointers.
SIGNATURES = {
    "gds_check_abi": (ctypes.c_int32, [ctypes.c_uint32]),
    "gds_version_string": (ctypes.c_char_p, []),
    "gds_status_string": (ctypes.c_char_p, [ctypes.c_int32]),
    "gds_last_error_message": (ctypes.c_char_p, []),
    "gds_context_open": (ctypes.c_int32, [POINTER, ctypes.POINTER(POINTER)]),
    "gds_context_close": (None, [POINTER]),
    "gds_file_open": (
        ctypes.c_int32,
        [POINTER, ctypes.c_char_p, ctypes.c_uint32, ctypes.POINTER(POINTER)],
    ),
    "gds_file_size": (ctypes.c_int32, [POINTER, ctypes.POINTER(U64)]),
    "gds_file_close": (None, [POINTER]),
    "gds_buffer_wrap": (ctypes.c_int32, [POINTER, POINTER, U64, ctypes.POINTER(POINTER)]),
    "gds_buffer_free": (None, [POINTER]),
    "gds_read": (
        ctypes.c_int32,
        [POINTER, U64, POINTER, U64, U64, ctypes.POINTER(U64)],
    ),
}


class GdsError(Exception):
    """A call failed; the text is the library's own."""


class Gds:
    """The library with its functions declared and its statuses turned into exceptions."""

    def __init__(self, name):
        self.library = ctypes.CDLL(name)
        for function, (result, arguments) in SIGNATURES.items():
            symbol = getattr(self.library, function)
            symbol.restype = result
            symbol.argtypes = arguments
        self.call("gds_check_abi", HEADER_VERSION)

    def call(self, function, *arguments):
        status = getattr(self.library, function)(*arguments)
        if status != GDS_STATUS_OK:
            name = self.library.gds_status_string(status).decode()
            message = self.library.gds_last_error_message().decode()
            raise GdsError(f"{function}: {name}: {message}")

    def made(self, function, *arguments):
        """Calls a function whose last argument receives a handle or a number."""
        kind = U64 if function == "gds_file_size" else POINTER
        out = kind()
        self.call(function, *arguments, ctypes.byref(out))
        return out


class Target:
    """Memory to read into: its address, what keeps it alive, and its bytes for the check."""

    def __init__(self, kind, address, owner, as_bytes):
        self.kind = kind
        self.address = address
        self.owner = owner
        self.as_bytes = as_bytes


def cupy_target(size):
    import cupy

    if cupy.cuda.runtime.getDeviceCount() == 0:
        raise ImportError("CuPy is there, a GPU is not")
    array = cupy.zeros(size, dtype=cupy.uint8)
    return Target("CuPy array", array.data.ptr, array, lambda: array.get().tobytes())


def numpy_target(size):
    import numpy

    array = numpy.zeros(size, dtype=numpy.uint8)
    return Target("numpy array", array.ctypes.data, array, array.tobytes)


def ctypes_target(size):
    buffer = ctypes.create_string_buffer(size)
    return Target("ctypes buffer", ctypes.addressof(buffer), buffer, lambda: buffer.raw)


TARGETS = {"cupy": cupy_target, "numpy": numpy_target, "ctypes": ctypes_target}


def make_target(size):
    wanted = os.environ.get("GDS_EXAMPLE_BUFFER")
    # CuPy fails in its own ways without a GPU, so any failure means "the next one".
    for name in [wanted] if wanted else TARGETS:
        try:
            return TARGETS[name](size)
        except KeyError:
            sys.exit(f"GDS_EXAMPLE_BUFFER={wanted}: choose one of {', '.join(TARGETS)}")
        except Exception as problem:
            print(f"no {name} buffer: {problem}")
    return None


def read_file(gds, path, target, size):
    """Reads the whole file into the target; returns how many bytes arrived."""
    context = file = buffer = None
    try:
        context = gds.made("gds_context_open", None)
        file = gds.made("gds_file_open", context, os.fsencode(path), GDS_FILE_READ)
        if gds.made("gds_file_size", file).value != size:
            raise GdsError(f"{path}: the library and the system disagree on its size")
        buffer = gds.made("gds_buffer_wrap", context, target.address, size)
        moved = U64()
        gds.call("gds_read", file, 0, buffer, 0, size, ctypes.byref(moved))
        return moved.value
    finally:
        gds.library.gds_buffer_free(buffer)
        gds.library.gds_file_close(file)
        gds.library.gds_context_close(context)


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.realpath(sys.executable)
    name = os.environ.get("GDS_RS_LIBRARY", "libgds_rs.so")
    try:
        gds = Gds(name)
    except OSError as problem:
        print(f"skipped: {problem} (set GDS_RS_LIBRARY to the path of the library)")
        return SKIPPED
    size = os.path.getsize(path)
    target = make_target(size)
    if target is None:
        print("skipped: no memory of the kind that was asked for")
        return SKIPPED

    moved = read_file(gds, path, target, size)
    with open(path, "rb") as plain:
        good = moved == size and target.as_bytes() == plain.read()
    version = gds.library.gds_version_string().decode()
    verdict = "verified" if good else "WRONG BYTES"
    print(f"gds_rs {version}: {moved} bytes of {path} into a {target.kind}: {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
