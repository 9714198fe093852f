"""The words by which clients sort output files, by extension. A contract with existing clients."""

TYPES = {
    "image": "png jpg jpeg gif bmp webp svg tiff ico",
    "model": "pt pth safetensors onnx h5 pb ckpt pkl joblib",
    "video": "mp4 avi mov mkv webm flv wmv",
    "audio": "mp3 wav flac ogg m4a aac",
    "data": "csv json parquet npy npz hdf5 feather arrow",
    "text": "txt log md rst",
    "archive": "zip tar gz tgz bz2 7z",
    "code": "py cpp c h hpp js ts rs go java sh",
    "document": "pdf docx xlsx pptx",
}
_TYPE_OF = {
    extension: name for name, extensions in TYPES.items() for extension in extensions.split()
}

BINARY = "application/octet-stream"
_MIME_OF = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "bmp": "image/bmp",
    "webp": "image/webp",
    "svg": "image/svg+xml",
    "mp4": "video/mp4",
    "avi": "video/x-msvideo",
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "webm": "video/webm",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "csv": "text/csv",
    "json": "application/json",
    "txt": "text/plain",
    "md": "text/markdown",
    "log": "text/plain",
    "zip": "application/zip",
    "tar": "application/x-tar",
    "gz": "application/gzip",
    "py": "text/x-python",
    "js": "application/javascript",
    "cpp": "text/x-c++",
    "c": "text/x-c",
    "h": "text/x-c",
    "pdf": "application/pdf",
}

# A browser would run these as a part of our own site: <script src> does not care for "attachment".
_ACTIVE = frozenset({"application/javascript", "image/svg+xml"})


def type_of(path: str) -> str:
    return _TYPE_OF.get(_extension(path), "other")


def mime_type_of(path: str) -> str:
    """What the file is, for information."""
    return _MIME_OF.get(_extension(path), BINARY)


def served_type_of(path: str) -> str:
    """As what the bytes are served: never as something that a browser executes."""
    mime = mime_type_of(path)
    return BINARY if mime in _ACTIVE else mime


def _extension(path: str) -> str:
    name = path.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[-1].lower() if "." in name else ""
