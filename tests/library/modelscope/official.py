"""Downloads from the hub at MODELSCOPE_ENDPOINT, and looks at its refusals.

official.py DIRECTORY REPOSITORY READER GUEST
"""

import sys
from pathlib import Path

import requests
from modelscope.hub.snapshot_download import snapshot_download

directory, repository, reader, guest = sys.argv[1:]
directory = Path(directory)


def refuses(name, **options):
    try:
        snapshot_download(name, local_dir=str(directory / "refused"), **options)
    except requests.exceptions.HTTPError:
        return
    raise AssertionError(f"{name} {options} is not refused")


# The client checks each file's SHA-256.
snapshot_download(repository, revision="v1", local_dir=str(directory / "model"))

refuses("acme/none")
refuses("acme/private")
refuses("acme/private", token=guest)
refuses("acme/private", token="ms-unknown")
private = snapshot_download("acme/private", local_dir=str(directory / "private"), token=reader)
assert (Path(private) / "config.json").read_text() == "{}"
