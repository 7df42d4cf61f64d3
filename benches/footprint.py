#!/usr/bin/env python3
"""The table that footprint.sh prints. Runs in KServe's environment, and measures that itself."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

DOCUMENT = pathlib.Path(__file__).resolve().parent.parent / "docs" / "dependencies.md"
BEGIN, END = "<!-- benches/footprint.sh --write -->\n", "<!-- end -->\n"
# What a virtual environment comes with, and kserve-storage does not ask for.
NOT_ITS_OWN = {"pip", "setuptools", "wheel"}


def mebibytes(size):
    return f"{size / 1024**2:.1f} MiB"


def on_disk(directory):
    files = (path for path in pathlib.Path(directory).rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


def own(distribution):
    return distribution.metadata["Name"].lower() not in NOT_ITS_OWN


def environment():
    """Packages and bytes of KServe's environment; what it can do without is not counted."""
    packages = [distribution for distribution in importlib.metadata.distributions(path=[site()]) if own(distribution)]
    others = sum(on_disk(pathlib.Path(site()) / name) for name in NOT_ITS_OWN)
    return len(packages), on_disk(sys.prefix) - others


def site():
    return next(path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages"))


def read(path):
    return json.loads(pathlib.Path(path).read_text("utf-8"))


def table(image, crates, startup):
    packages, size = environment()
    version = importlib.metadata.version("kserve-storage")
    ms = startup["ms"]

    def took(what):
        return f"{ms[what]['median']:.1f} ms, {ms[what]['p99']:.1f} ms"

    rows = [
        ("", "modelmount", f"kserve-storage {version}"),
        ("---", "---", "---"),
        ("compressed", f"{mebibytes(image['compressed'])}, the image", "–"),
        ("unpacked", f"{mebibytes(image['bytes'])}, the image", f"{mebibytes(size)}, without Python and a system"),
        ("packages", f"{crates} crates", f"{packages} Python packages"),
        ("start: `--version`", took("version"), "–"),
        ("start: `node --help`", took("help"), "–"),
        ("start: first Probe answered", took("probe"), "–"),
        ("start: `from kserve_storage import Storage`", "–", took("compare")),
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    about = (f"Start-up is median and 99th percentile of {startup['rounds']} runs in turn, files in memory, on "
             f"{os.cpu_count()} cores, Linux {platform.release()}.")
    return "\n".join([*lines, "", about, ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("image", "sbom", "startup"):
        parser.add_argument(f"--{name}", required=True, type=read)
    parser.add_argument("--write", action="store_true", help=f"put the table into {DOCUMENT.name}")
    options = parser.parse_args()
    crates = sum(component.get("purl", "").startswith("pkg:cargo/") for component in options.sbom["components"])
    text = table(options.image, crates, options.startup)
    print(f"\n{text}", end="")
    if options.write:
        before, rest = DOCUMENT.read_text("utf-8").split(BEGIN)
        _, after = rest.split(END)
        DOCUMENT.write_text(f"{before}{BEGIN}{text}{END}{after}", "utf-8")


main()
