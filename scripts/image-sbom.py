#!/usr/bin/env python3
"""Lists what is in the image, in CycloneDX's format: the crates that are linked, what else is in the binary, the files.

    image-contents.py ARCHIVE --json | image-sbom.py OUT.cdx.json

Crates are taken from `cargo tree`, which knows features and targets. `cargo metadata`, and every tool that is built on
it, resolves the whole workspace at once, tests included. Procedural macros are left out: they ran in the compiler. The
same image gives the same bytes; SOURCE_DATE_EPOCH is its time.
"""

import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import uuid

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

TRIPLE = "x86_64-unknown-linux-gnu"
LINE = re.compile(r"(\d+) (\S+) v(\S+)[^|]*\|([^|]*)\|(\S*)")
LICENSES = LicenseFactory()


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def component(kind, name, version, purl, license_text, sha256=None, repository=None):
    return Component(
        type=kind, name=name, version=version, purl=purl, bom_ref=purl.to_string() if purl else name,
        licenses=[LICENSES.make_from_string(license_text.replace("/", " OR "))],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else [],
        external_references=[ExternalReference(type=ExternalReferenceType.VCS, url=XsUri(repository))] if repository else [],
    )


def crates(bom):
    """The tree of crates, registered with `bom`; returns its root, the binary's own crate."""
    with open("Cargo.lock", "rb") as lock:
        checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in tomllib.load(lock)["package"]}
    tree = run("cargo", "tree", "--locked", "--package", "modelmount-driver", "--edges", "normal,no-proc-macro",
               "--target", TRIPLE, "--prefix", "depth", "--format", " {p}|{l}|{r}")
    known, path = {}, []
    for line in tree.splitlines():
        depth, name, version, license_text, repository = LINE.match(line).groups()
        key = (name, version)
        if key not in known:
            purl = PackageURL("cargo", None, name, version)
            known[key] = component(ComponentType.LIBRARY, name, version, purl, license_text, checksums[key], repository)
            bom.components.add(known[key])
        path[int(depth):] = [known[key]]
        if len(path) > 1:
            bom.register_dependency(path[-2], [path[-1]])
    return path[0]


def debian_version(package):
    return run("dpkg-query", "--show", "--showformat=${Version}", package)


def toolchain():
    """What the compilers put into the binary beside the crates."""
    rustc = dict(line.split(": ", 1) for line in run("rustc", "--version", "--verbose").splitlines() if ": " in line)
    source = f"git+https://github.com/rust-lang/rust@{rustc['commit-hash']}"
    purl = PackageURL("generic", None, "rust-std", rustc["release"], {"vcs_url": source})
    yield component(ComponentType.LIBRARY, "rust-std", rustc["release"], purl, "MIT OR Apache-2.0")
    gcc = run("cc", "-dumpversion").strip()
    for name, package, version, license_text in (
        ("glibc", "libc6-dev", run("getconf", "GNU_LIBC_VERSION").split()[1], "LGPL-2.1-or-later"),
        ("libgcc", f"libgcc-{gcc}-dev", gcc, "GPL-3.0-or-later WITH GCC-exception-3.1"),
    ):
        if shutil.which("dpkg-query"):
            version = debian_version(package)
            purl = PackageURL("deb", "debian", package, version, {"arch": "amd64"})
        else:
            purl = PackageURL("generic", None, name, version)
        yield component(ComponentType.LIBRARY, name, version, purl, license_text)


def main():
    (out,) = sys.argv[1:]
    image = json.load(sys.stdin)
    hashes = {file["path"]: file["sha256"] for file in image["files"]}
    repository, tag = image["name"].rsplit(":", 1)
    bom = Bom()

    purl = PackageURL("oci", None, "modelmount", image["digest"], {"repository_url": repository, "tag": tag})
    subject = component(ComponentType.CONTAINER, repository, tag, purl, "Apache-2.0", image["digest"].removeprefix("sha256:"))
    bom.metadata.component = subject
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), datetime.UTC)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, image["digest"])

    binary = component(ComponentType.FILE, "/modelmount", tag, None, "Apache-2.0", hashes["modelmount"])
    with open("deploy/ca-roots.txt", encoding="utf-8") as pins:
        certifi = re.search(r"^certifi==(\S+)", pins.read(), re.MULTILINE).group(1)
    purl = PackageURL("pypi", None, "certifi", certifi)
    path = "etc/ssl/certs/ca-certificates.crt"
    roots = component(ComponentType.FILE, f"/{path}", certifi, purl, "MPL-2.0", hashes[path])
    linked = [crates(bom), *toolchain()]
    for part in (binary, roots, *linked[1:]):
        bom.components.add(part)
    bom.register_dependency(subject, [binary, roots])
    bom.register_dependency(binary, linked)

    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    if problem := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"{out} would not be CycloneDX: {problem}")
    with open(out, "w", encoding="utf-8") as file:
        file.write(text)


main()
