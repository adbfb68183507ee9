#!/usr/bin/env python3
"""Tensors of a safetensors or GGUF file in PyTorch, CuPy or numpy, without a copy, by ctypes.

    python_formats.py FILE

gds_rs loads the file into memory of its device and hands each tensor on by DLPack: PyTorch takes it
when it is installed, else CuPy (on a GPU) or numpy (on the host). GDS_DEVICE=host, cuda:0, ...
chooses the device, GDS_RS_LIBRARY names the library. Exit status: 0 verified, 1 wrong, 77 skipped.
"""

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_uint32, c_uint64, c_void_p

SKIPPED = 77


class Place(ctypes.Structure):  # gds_tensor_place_t
    _fields_ = [(name, c_uint64) for name in ("tensor", "offset", "size_bytes", "cut_elements")]


class TensorInfo(ctypes.Structure):  # gds_tensor_info_t
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("name", c_char_p),
                ("name_bytes", c_uint64), ("dtype_name", c_char_p), ("shape", POINTER(c_uint64)),
                ("dimensions", c_uint32), ("block_elements", c_uint32), ("block_bytes", c_uint32),
                ("file", c_uint32), ("file_offset", c_uint64), ("size_bytes", c_uint64)]


class Managed(ctypes.Structure):  # the part of gds_dlpack_t that is looked at here
    _fields_ = [("major", c_uint32), ("minor", c_uint32), ("context", c_void_p),
                ("deleter", ctypes.CFUNCTYPE(None, c_void_p)), ("flags", c_uint64),
                ("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32)]


class Gds:
    """The library; a call that fails raises with the library's own words."""

    def __init__(self, name):
        self.library = ctypes.CDLL(name)
        self.library.gds_last_error_message.restype = c_char_p

    def __call__(self, function, *arguments):
        if getattr(self.library, function)(*arguments):
            raise RuntimeError(self.library.gds_last_error_message().decode())

    def made(self, function, *arguments):
        out = c_void_p()
        self(function, *arguments, byref(out))
        return out


class Exported:
    """One tensor on its way into another library: the protocol of DLPack."""

    def __init__(self, managed):
        self.managed = ctypes.cast(managed, POINTER(Managed)).contents

    def __dlpack_device__(self):
        return self.managed.device_type, self.managed.device_id

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
        # The bytes have arrived for every stream when gds_tensors_load() returns. Whoever takes
        # the capsule calls the deleter; the memory lives until then.
        return make(ctypes.addressof(self.managed), b"dltensor_versioned", None)


def load_tensors(gds, context, path, take):
    """All tensors of a file, by name, each as `take` makes it; and where each is in the file."""
    file = gds.made("gds_file_open", context, os.fsencode(path), c_uint32(1))
    tensors = gds.made("gds_tensors_open", file)
    info = (c_uint64 * 5)(40)  # gds_tensors_info_t: its size, then tensors, metadata, files, bytes
    gds("gds_tensors_info", tensors, byref(info))
    places = (Place * info[1])()
    buffer = gds.made("gds_tensors_load", tensors, None, c_uint64(0), c_uint64(0), places)
    found = {}  # What is handed on keeps the memory: no handle is needed afterwards.
    for index, place in enumerate(places):
        tensor = TensorInfo(struct_size=ctypes.sizeof(TensorInfo))
        gds("gds_tensors_get", tensors, c_uint64(index), byref(tensor))
        part = (c_uint64 * 4)(index)  # gds_tensor_part_t: all of it
        offset, flags = c_uint64(place.offset), c_uint32(0)
        managed = gds.made("gds_tensors_dlpack", tensors, part, buffer, offset, flags)
        found[tensor.name.decode()] = take(Exported(managed)), tensor.file_offset, place.size_bytes
    gds.library.gds_buffer_free(buffer)
    gds.library.gds_tensors_close(tensors)
    gds.library.gds_file_close(file)
    return found


def consumer():
    """A function that takes a DLPack tensor, one that gives its bytes, and the library's name."""
    try:
        import torch
        flat = lambda tensor: tensor.cpu().reshape(-1).view(torch.uint8)
        return torch.from_dlpack, lambda tensor: flat(tensor).numpy().tobytes(), "torch"
    except ImportError:
        pass
    try:
        import cupy
        if cupy.cuda.runtime.getDeviceCount() and os.environ.get("GDS_DEVICE") != "host":
            return cupy.from_dlpack, lambda t: cupy.asnumpy(t).tobytes(), "CuPy"
    except Exception:  # CuPy fails in its own ways without a GPU.
        pass
    import numpy
    os.environ.setdefault("GDS_DEVICE", "host")
    return numpy.from_dlpack, lambda t: t.tobytes(), "numpy"


def main():
    try:
        take, bytes_of, name = consumer()
        gds = Gds(os.environ.get("GDS_RS_LIBRARY", "libgds_rs.so"))
    except (ImportError, OSError) as problem:
        print(f"skipped: {problem}")
        return SKIPPED
    if len(sys.argv) < 2:
        print("skipped: name a safetensors or GGUF file")
        return SKIPPED
    path = sys.argv[1]
    context = gds.made("gds_context_open", None)
    tensors = load_tensors(gds, context, path, take)
    gds.library.gds_context_close(context)
    good = True
    with open(path, "rb") as plain:
        for tensor, offset, size in tensors.values():
            plain.seek(offset)
            good &= bytes_of(tensor) == plain.read(size)
    print(f"{len(tensors)} tensors of {os.path.basename(path)} in {name} without a copy:",
          "verified" if good else "WRONG BYTES")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
