"""Reads, in a container, which CUDA libraries each shared object needs, and which there are; prints JSON {library: [[major, file], ...]}.

    python3 - DIRECTORY < abi.py

A small reader of ELF's dynamic section (System V ABI, chapter 5), since an image has no readelf for thousands of files in seconds.
"""

import json
import os
import re
import struct
import sys

CUDA = re.compile(
    rb"^lib(cudart|cublas|cublasLt|nvrtc|cufft|curand|cusolver|cusparse|cupti|nvJitLink|nvrtc-builtins|cufile)\.so\.(\d+)"
)


def needed(data: bytes) -> list[bytes]:
    """The DT_NEEDED entries of a 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    (offset,) = struct.unpack_from("<Q", data, 0x20)
    size, count = struct.unpack_from("<HH", data, 0x36)
    segments = [struct.unpack_from("<IIQQQQQQ", data, offset + index * size) for index in range(count)]
    loads = [(address, file, length) for kind, _, file, address, _, length, *_ in segments if kind == 1]
    dynamic = [(file, length) for kind, _, file, _, _, length, *_ in segments if kind == 2]
    if not dynamic:
        return []
    start, length = dynamic[0]
    entries = [struct.unpack_from("<QQ", data, at) for at in range(start, start + length, 16)]
    strings = dict(entries).get(5)
    for address, file, extent in loads:
        if strings is not None and address <= strings < address + extent:
            base = strings - address + file
            return [data[base + value : data.index(b"\0", base + value)] for tag, value in entries if tag == 1]
    return []


found: dict[str, set[tuple[str, str]]] = {}
for directory, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(directory, name)
        if ".so" in name and os.path.isfile(path) and not os.path.islink(path):
            with open(path, "rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
                file.seek(0)
                if match := CUDA.match(name.encode()):
                    found.setdefault(match[1].decode(), set()).add((match[2].decode(), path))
                for library in needed(file.read()):
                    if match := CUDA.match(library):
                        found.setdefault(match[1].decode(), set()).add((match[2].decode(), path))
print(json.dumps({library: sorted(users) for library, users in found.items()}))
