#!/usr/bin/env python3
"""Looks into an OCI archive of the image: exactly the files that belong there, a static binary, the size.

    image-contents.py ARCHIVE              prints name, digest and size; fails where the image is not as it must be
    image-contents.py ARCHIVE --json       the same for programs
    --extract PATH FILE                    writes one of its files besides
"""

import argparse
import hashlib
import io
import json
import pathlib
import struct
import sys
import tarfile

MOST_COMPRESSED = 15 * 1024**2
# Path: type, mode. Everything belongs to 0:0.
CONTENTS = {
    "etc": ("directory", "0o755"),
    "etc/ssl": ("directory", "0o755"),
    "etc/ssl/certs": ("directory", "0o755"),
    "etc/ssl/certs/ca-certificates.crt": ("file", "0o644"),
    "modelmount": ("file", "0o755"),
}
LABELS = ("title", "description", "source", "licenses", "version", "revision", "created")


class Image:
    """The one image of an OCI archive; every blob's digest is checked."""

    def __init__(self, path):
        with tarfile.open(path) as archive:
            self.blobs = {pathlib.PurePosixPath(member.name).name: archive.extractfile(member).read()
                          for member in archive if member.isfile()}
        (self.entry,) = json.loads(self.blobs["index.json"])["manifests"]
        self.name = self.entry["annotations"]["org.opencontainers.image.ref.name"]
        self.digest = self.entry["digest"]
        self.manifest = json.loads(self.blob(self.entry))
        self.config = json.loads(self.blob(self.manifest["config"]))
        self.layers = [self.blob(layer) for layer in self.manifest["layers"]]

    def blob(self, descriptor):
        digest = descriptor["digest"].removeprefix("sha256:")
        data = self.blobs[digest]
        if hashlib.sha256(data).hexdigest() != digest or len(data) != descriptor["size"]:
            sys.exit(f"blob {digest} is not what its name says")
        return data

    def compressed(self):
        return sum(len(layer) for layer in self.layers) + self.manifest["config"]["size"] + self.entry["size"]

    def files(self):
        """Path, tar entry and content of everything in the layers."""
        for layer in self.layers:
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                for member in tar:
                    yield member.name.rstrip("/"), member, tar.extractfile(member).read() if member.isfile() else b""


def program_headers(elf):
    """The types of an ELF file's program headers (64 bit, little endian)."""
    if elf[:6] != b"\x7fELF\x02\x01":
        return None
    (offset,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return {struct.unpack_from("<I", elf, offset + index * size)[0] for index in range(count)}


def kind(member):
    return "file" if member.isfile() else "directory" if member.isdir() else "other"


def problems(image):
    """What is not as it must be, a line each."""
    files = list(image.files())
    found = {path: (kind(member), oct(member.mode & 0o7777)) for path, member, _ in files}
    for path in sorted(CONTENTS.keys() | found.keys()):
        if CONTENTS.get(path) != found.get(path):
            yield f"/{path} is {found.get(path)}, and must be {CONTENTS.get(path)}"
    created = image.config["created"]
    for path, member, _ in files:
        if (member.uid, member.gid) != (0, 0):
            yield f"/{path} belongs to {member.uid}:{member.gid}"
    if len({member.mtime for _, member, _ in files}) != 1:
        yield "the files are of different times"
    contents = {path: content for path, _, content in files}
    headers = program_headers(contents.get("modelmount", b""))
    if headers is None or 3 in headers:  # PT_INTERP: a dynamic loader would be needed
        yield "/modelmount is no static binary"
    if contents.get("etc/ssl/certs/ca-certificates.crt", b"").count(b"BEGIN CERTIFICATE") < 100:
        yield "there are not as many CA certificates as Mozilla trusts"
    config = image.config["config"]
    if config.get("Entrypoint") != ["/modelmount"] or config.get("Cmd") or config.get("User"):
        yield f"it would not run /modelmount as root: {config}"
    if any(not variable.startswith("PATH=") for variable in config.get("Env", [])):
        yield f"environment variables: {config['Env']}"
    labels = config.get("Labels", {})
    if set(labels) != {f"org.opencontainers.image.{label}" for label in LABELS} or not all(labels.values()):
        yield f"labels: {labels}"
    elif labels["org.opencontainers.image.created"] != created:
        yield f"created {created}, but the label says {labels['org.opencontainers.image.created']}"
    if image.compressed() > MOST_COMPRESSED:
        yield f"{image.compressed()} bytes compressed, and at most {MOST_COMPRESSED} are allowed"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--extract", nargs=2, metavar=("PATH", "FILE"))
    options = parser.parse_args()
    image = Image(options.archive)
    found = list(problems(image))
    if options.extract:
        path, target = options.extract
        pathlib.Path(target).write_bytes({name: content for name, _, content in image.files()}[path])
    unpacked = sum(len(content) for _, _, content in image.files())
    if options.json:
        files = [{"path": path, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
                 for path, member, content in image.files() if member.isfile()]
        print(json.dumps({"name": image.name, "digest": image.digest, "compressed": image.compressed(), "bytes": unpacked,
                          "files": files}))
    else:
        print(f"{options.archive}\n  {image.name}@{image.digest}")
        print(f"  {image.compressed() / 1024**2:.2f} MiB compressed, {unpacked / 1024**2:.2f} MiB unpacked")
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)


main()
