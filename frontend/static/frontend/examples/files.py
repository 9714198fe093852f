"""Leaves files that are shown on the page: a table, JSON, text, a picture, a document."""

import json
import struct
import zlib

with open("table.csv", "w") as file:
    file.write("n,square,cube\n" + "".join(f"{n},{n * n},{n**3}\n" for n in range(50)))
with open("data.json", "w") as file:
    json.dump({"name": "Sandrun", "numbers": [1, 2, 3], "nothing is kept": True}, file)
with open("notes.txt", "w") as file:
    file.write("A file of text.\n" * 3)
with open("page.html", "w") as file:
    file.write("<h1>A document</h1><p>It runs in a frame without any rights.</p>")

size = 128
rows = b"".join(
    b"\0" + bytes(part for x in range(size) for part in (2 * x, 2 * y, 255 - x - y))
    for y in range(size)
)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


with open("gradient.png", "wb") as file:
    file.write(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">2I5B", size, size, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
print("Five files: see Files.")
