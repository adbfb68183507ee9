"""The section of formats_bench.py on safetensors: one file and a sharded model, warm and cold."""

import json
import os
import struct
import threading
from ctypes import byref, c_uint64

from formats_gds import MIB, Rounds, direct_read

SINGLE, SHARDED = "one file", "{} files"
CUFILE = "fastsafetensors, cuFile"


def make_model(folder, size, shards):
    """Files of `size` bytes each, with tensors of a language model's shapes in random bytes."""
    names, paths = {}, []
    for number in range(1, shards + 1):
        path = os.path.join(folder, f"model-{number:05}-of-{shards:05}.safetensors")
        tensors, offset, layer, added = {}, 0, 0, True
        shapes = [(4096, 4096)] * 4 + [(14336, 4096)] * 2 + [(4096, 14336), (4096,), (4096,)]
        while added:
            added = False
            for part, shape in enumerate(shapes):
                end = offset + 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
                if end > size - MIB:
                    continue
                name = f"layers.{number}.{layer}.{part}.weight"
                tensors[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
                names[name] = os.path.basename(path)
                offset, added = end, added or len(shape) > 1
            layer += 1
        header = json.dumps(tensors).encode()
        header += b" " * (-len(header) % 8)
        write_file(path, struct.pack("<Q", len(header)) + header, offset)
        paths.append(path)
    index = os.path.join(folder, "model.safetensors.index.json")
    with open(index, "w") as file:
        json.dump({"metadata": {}, "weight_map": names}, file)
    return index, paths


def write_file(path, head, size):
    """The head, then `size` random bytes, written by eight threads."""
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    step = (size // 8 // MIB + 1) * MIB

    def work(begin):
        fd = os.open(path, os.O_WRONLY)
        for at in range(begin, min(begin + step, size), 4 * MIB):
            part = min(4 * MIB, min(begin + step, size) - at)
            os.pwrite(fd, os.urandom(part), len(head) + at)
        os.close(fd)

    threads = [threading.Thread(target=work, args=(begin,)) for begin in range(0, size, step)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Loaded:
    """What ours made: device memory, freed when it is dropped."""

    def __init__(self, gds, path, places=None):
        file = gds.open(path)
        tensors = gds.made("gds_tensors_open", file)
        none = c_uint64(0)
        self.gds, self.buffer = gds, None
        self.buffer = gds.made("gds_tensors_load", tensors, None, none, none, places)
        gds.library.gds_tensors_close(tensors)
        gds.library.gds_file_close(file)

    def __del__(self):
        self.gds.library.gds_buffer_free(self.buffer)


class Fast:
    """What fastsafetensors made; its buffers are closed when it is dropped."""

    def __init__(self, module, paths, device, nogds):
        self.loader = module.SafeTensorsFileLoader(
            module.SingleGroup(), device=device, nogds=nogds
        )
        self.loader.add_filenames({0: list(paths)})
        self.buffers = self.loader.copy_files_to_device()
        self.tensors = [self.buffers.get_tensor(name) for name in self.loader.get_keys()]

    def __del__(self):
        self.tensors = None
        if hasattr(self, "buffers"):
            self.buffers.close()
        self.loader.close()


class Peers:
    """The peers that are installed: a function from paths to what was loaded, by name."""

    def __init__(self, bench):
        self.bench, self.gds = bench, bench.gds
        self.device = f"cuda:{self.gds.ordinal}" if self.gds.on_gpu else "cpu"
        self.found = {}
        if bench.o.skip_peers:
            return
        for name, make in (
            ("safetensors", self.plain), ("fastsafetensors", self.fast),
            (CUFILE, self.fast_cufile), ("runai-model-streamer", self.runai),
        ):  # fmt: skip
            try:
                self.found[name] = make()
            except Exception as problem:  # A peer that is not there is said to be not there.
                bench.note(f"{name}: not installed ({type(problem).__name__}: {problem})"[:200])

    def done(self):
        if self.bench.memory.torch:
            self.bench.memory.torch.cuda.synchronize()

    def plain(self):
        if not self.gds.on_gpu:
            # torch would map the file and move nothing.
            from safetensors.numpy import load_file
            return lambda paths: [load_file(path) for path in paths]
        from safetensors.torch import load_file

        def load(paths):
            held = [load_file(path, device=self.device) for path in paths]
            self.done()
            return held

        return load

    def fast(self, nogds=True):
        import fastsafetensors
        import torch  # noqa: F401  # which it needs, and looks for later

        def load(paths):
            held = Fast(fastsafetensors, paths, self.device, nogds)
            self.done()
            return held

        return load

    def fast_cufile(self):
        if not self.gds.on_gpu:
            raise RuntimeError("there is no GPU")
        return self.fast(nogds=False)

    def runai(self):
        from runai_model_streamer import SafetensorsStreamer

        def load(paths):
            with SafetensorsStreamer() as streamer:
                streamer.stream_files(list(paths), device=self.device)
                # On the host what it gives is used again for the next tensor.
                keep = (lambda t: t) if self.gds.on_gpu else (lambda t: t.clone())
                held = {name: keep(tensor) for name, tensor in streamer.get_tensors()}
            self.done()
            return held

        return load


def verify(bench, path):
    """The first and the last tensor of a file, compared with a plain read."""
    with open(path, "rb") as file:
        head = struct.unpack("<Q", file.read(8))[0]
        tensors = list(json.loads(file.read(head)).values())
        places = (c_uint64 * 4 * len(tensors))()
        loaded = Loaded(bench.gds, path, places)
        address = c_uint64()
        bench.gds("gds_buffer_address", loaded.buffer, byref(address))
        for tensor in (tensors[0], tensors[-1]):
            begin, end = tensor["data_offsets"]
            file.seek(8 + head + begin)
            place = next(p for p in places if tensors[p[0]] is tensor)
            if bench.memory.read(address.value + place[1], end - begin) != file.read(end - begin):
                bench.wrong(f"tensors of {path} are not what a plain read gives")


def run(bench):
    o = bench.o
    shards = max(1, o.sharded_size // o.tensor_size)
    index, paths = make_model(bench.folder, o.tensor_size, shards)
    bench.made()
    verify(bench, paths[0])
    peers = Peers(bench)
    limit_name, limit = bench.copy_limit()
    cases = [(SINGLE, paths[0], paths[:1])]
    if shards > 1:
        cases.append((SHARDED.format(shards), index, paths))
    for cold in (False, True):
        for what, entry, files in cases:
            size = sum(os.path.getsize(path) for path in files)
            state = "disk, cold" if cold else "page cache"
            title = f"safetensors, {what} of {size / MIB:,.0f} MiB, {state}"
            rounds = Rounds(bench, title, files, cold)
            rounds.add("ours", lambda: Loaded(bench.gds, entry))
            for name, load in peers.found.items():
                if name != CUFILE:
                    rounds.add(name, lambda load=load: load(files))
            if cold:
                rounds.add("O_DIRECT reads, 4 threads", lambda: direct_read(files))
            medians = rounds.run(size)
            ours = medians.pop("ours", None)
            limits = {limit_name: limit}
            if cold:
                direct = "O_DIRECT reads, 4 threads"
                limits = {direct: medians.pop(direct)} if direct in medians else {}
                limits.update(bench.fio(title, files[0]))
            best = max(medians.values(), default=None)
            target = ("5 x the best peer", best and 5 * best)
            if cold:
                target = ("not under a peer", best)
            bench.row(title, "GB/s", ours, medians, limits, [target])
    if CUFILE in peers.found and not bench.is_late():
        # Last and alone: libcufile may wait for ever where nvidia-fs is missing.
        size = os.path.getsize(paths[0])
        title = f"safetensors, {SINGLE} of {size / MIB:,.0f} MiB, page cache, beside cuFile"
        rounds = Rounds(bench, title, paths[:1])
        rounds.add("ours", lambda: Loaded(bench.gds, paths[0]))
        rounds.add(CUFILE, lambda: peers.found[CUFILE](paths[:1]))
        medians = rounds.run(size)
        bench.row(title, "GB/s", medians.pop("ours", None), medians, {limit_name: limit})
