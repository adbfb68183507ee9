#!/usr/bin/env python3
"""Tensors and columns of a file in PyTorch, CuPy or numpy, without a copy, by ctypes.

    python_formats.py FILE

gds_rs loads the file into device memory. Tensors of a safetensors or GGUF file go on by DLPack, to
PyTorch when it is installed; columns of numbers of a Parquet file to CuPy or, on the host, numpy.
GDS_DEVICE=host, cuda:0, ... chooses the device, GDS_RS_LIBRARY names the library. Exit status: 0
verified, 1 wrong, 77 skipped.
"""

import ctypes
import importlib.util
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p

SKIPPED = 77
NUMBERS = {b"i": "<i4", b"l": "<i8", b"f": "<f4", b"g": "<f8"}  # Arrow's types, and numpy's


class TensorInfo(ctypes.Structure):  # gds_tensor_info_t
    _fields_ = [("struct_size", c_uint32), ("dtype", c_int32), ("name", c_char_p),
                ("name_bytes", c_uint64), ("dtype_name", c_char_p), ("shape", POINTER(c_uint64)),
                ("dimensions", c_uint32), ("block_elements", c_uint32), ("block_bytes", c_uint32),
                ("file", c_uint32), ("file_offset", c_uint64), ("size_bytes", c_uint64)]


class ColumnInfo(ctypes.Structure):  # gds_column_t
    _fields_ = [("struct_size", c_uint32), ("buffers", c_uint32), ("children", c_uint32),
                ("has_dictionary", c_uint32), ("length", c_uint64), ("null_count", c_int64),
                ("offset", c_uint64), ("name", c_char_p), ("format", c_char_p)]


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


class Tensor:
    """One tensor on its way into another library, by DLPack: a pointer to a gds_dlpack_t."""
    def __init__(self, managed):
        self.managed = managed

    def __dlpack_device__(self):
        return tuple(ctypes.cast(self.managed, POINTER(c_int32))[10:12])

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
        # The bytes are there for every stream. Whoever takes the capsule gives the memory back.
        return make(self.managed, b"dltensor_versioned", None)


class Column:
    """One column in device memory, as CuPy and numpy take it; it lives as long as their array."""
    def __init__(self, gds, parquet, name):
        names = (c_char_p * 1)(name.encode())
        chosen = (c_uint64 * 11)(88, ctypes.addressof(names), 1)  # gds_parquet_selection_t
        self.gds, self.handle = gds, gds.made("gds_parquet_load", parquet, chosen)
        info, values = ColumnInfo(ctypes.sizeof(ColumnInfo)), (c_uint64 * 2)()
        place = self.handle, c_uint64(0), byref(c_uint32(0)), c_uint64(1)
        gds("gds_columns_column", *place, byref(info))
        gds("gds_columns_buffer", *place, c_uint32(1), values)  # The first one is of nulls.
        if info.format in NUMBERS and info.null_count == 0:
            self.__array_interface__ = self.__cuda_array_interface__ = {
                "shape": (info.length,), "typestr": NUMBERS[info.format], "version": 3,
                "data": (values[0], False)}

    def __del__(self):
        self.gds.library.gds_columns_close(self.handle)


def tensors(gds, file, path, take):
    """All tensors, each as `take` makes it, and its bytes by a plain read."""
    model = gds.made("gds_tensors_open", file)
    about = (c_uint64 * 5)(40)  # gds_tensors_info_t: its size, then tensors, metadata, files, bytes
    gds("gds_tensors_info", model, byref(about))
    places = (c_uint64 * 4 * about[1])()  # gds_tensor_place_t: tensor, offset, size, what was cut
    buffer = gds.made("gds_tensors_load", model, None, c_uint64(0), c_uint64(0), places)
    for index, (_, offset, size, _) in enumerate(places):
        info, part = TensorInfo(ctypes.sizeof(TensorInfo)), (c_uint64 * 4)(index)
        gds("gds_tensors_get", model, c_uint64(index), byref(info))
        where = c_uint64(offset), c_uint32(0)
        tensor = take(Tensor(gds.made("gds_tensors_dlpack", model, part, buffer, *where)))
        with open(path, "rb") as plain:
            plain.seek(info.file_offset)
            yield tensor, plain.read(size)
    gds.library.gds_buffer_free(buffer)  # What was handed on keeps the memory.
    gds.library.gds_tensors_close(model)


def columns(gds, file, path, take):
    """All columns of numbers without nulls, each as `take` makes it, and its bytes by pyarrow."""
    import pyarrow.parquet
    table, parquet = pyarrow.parquet.read_table(path), gds.made("gds_parquet_open", file, None)
    for name in table.column_names:
        column = Column(gds, parquet, name)
        if hasattr(column, "__array_interface__"):
            yield take(column), table[name].to_numpy().tobytes()
    gds.library.gds_parquet_close(parquet)


def bytes_of(value):
    if hasattr(value, "untyped_storage"):  # PyTorch's
        value = value.cpu().reshape(-1).view(sys.modules["torch"].uint8).numpy()
    return (value.get() if hasattr(value, "get") else value).tobytes()


def main():
    if len(sys.argv) < 2:
        print("skipped: name a safetensors, GGUF or Parquet file")
        return SKIPPED
    path, gds = sys.argv[1], Gds(os.environ.get("GDS_RS_LIBRARY", "libgds_rs.so"))
    usual = "cuda:0" if os.path.exists("/dev/nvidia0") else "host"
    arrays = "numpy" if os.environ.setdefault("GDS_DEVICE", usual) == "host" else "cupy"
    context = gds.made("gds_context_open", None)
    file, detected = gds.made("gds_file_open", context, os.fsencode(path), c_uint32(1)), c_int32()
    gds("gds_format_detect", file, byref(detected))
    is_table = detected.value == 2  # GDS_FORMAT_PARQUET
    name = "torch" if not is_table and importlib.util.find_spec("torch") else arrays
    library = importlib.import_module(name)
    make, take = (columns, library.asarray) if is_table else (tensors, library.from_dlpack)
    taken = list(make(gds, file, path, take))
    gds.library.gds_file_close(file)
    gds.library.gds_context_close(context)
    good = all(bytes_of(value) == want for value, want in taken)
    print(f"{len(taken)} {make.__name__} of {os.path.basename(path)} in {name} without a copy:",
          "verified" if good else "WRONG BYTES")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ImportError, OSError) as problem:
        print(f"skipped: {problem}")
        sys.exit(SKIPPED)
