"""Reads format and size of a picture from an address: a file, or a signed address of a bucket."""
import hashlib
import struct
import urllib.request

HEAD = 64 << 10


def read(url):
    """The first bytes, the size and the hash, without keeping the whole picture in memory."""
    head, size, digest = b"", 0, hashlib.sha256()
    with urllib.request.urlopen(url, timeout=60) as picture:
        while part := picture.read(HEAD):
            head += part[:HEAD - len(head)]
            size += len(part)
            digest.update(part)
    return head, size, digest.hexdigest()


def measured(head):
    """Format, width and height; None if the first bytes do not contain them."""
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return "png", *struct.unpack_from(">II", head, 16)
        if head.startswith(b"GIF8"):
            return "gif", *struct.unpack_from("<HH", head, 6)
        if head.startswith(b"\xff\xd8\xff"):
            return "jpeg", *frame(head)
    except struct.error:
        return {0x89: "png", 0x47: "gif", 0xFF: "jpeg"}[head[0]], None, None
    return None, None, None


def frame(head):
    """The first frame header of a JPEG has the height, then the width."""
    at = 2
    while True:
        (marker,) = struct.unpack_from("B", head, at + 1)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", head, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", head, at + 2)[0]
