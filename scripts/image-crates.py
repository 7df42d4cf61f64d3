#!/usr/bin/env python3
"""Compares the crates that a CycloneDX file lists with those that cargo compiled into the binary.

    cargo build --target TRIPLE --message-format=json … | image-crates.py LIST.cdx.json TRIPLE
"""

import json
import sys


def compiled(messages, triple):
    """name@version of every library that was compiled for the target, not for the machine that builds."""
    for line in messages:
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and any(f"/{triple}/" in file for file in message["filenames"]):
            source, name = message["package_id"].rsplit("#", 1)
            yield name if "@" in name else f"{source.rsplit('/', 1)[1]}@{name}"


def main():
    path, triple = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        components = json.load(file)["components"]
    listed = {f"{part['name']}@{part['version']}" for part in components if part.get("purl", "").startswith("pkg:cargo/")}
    linked = set(compiled(sys.stdin, triple))
    for crate in sorted(listed - linked):
        print(f"error: {crate} is listed, but was not compiled", file=sys.stderr)
    for crate in sorted(linked - listed):
        print(f"error: {crate} was compiled, but is not listed", file=sys.stderr)
    print(f"  {len(listed)} crates listed, {len(linked)} compiled")
    sys.exit(0 if listed == linked and linked else 1)


main()
