"""Downloads from the hub at HF_ENDPOINT, and looks at its refusals.

official.py DIRECTORY REPOSITORY READER GUEST
"""

import shutil
import sys
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

directory, repository, reader, guest = sys.argv[1:]
directory = Path(directory)
api = HfApi(token=False)


def refuses(error, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except error:
        return
    raise AssertionError(f"{call.__name__} {arguments} {options} did not raise {error.__name__}")


def without_notes(target):
    """The client keeps notes of its own beside the files."""
    shutil.rmtree(target / ".cache")


# The whole of a model by a reference with slashes, with git's and LFS's hashes compared, and a data set.
snapshot_download(repository, revision="refs/pr/1", local_dir=directory / "model", token=reader)
verified = api.verify_repo_checksums(repository, revision="refs/pr/1", local_dir=directory / "model")
assert verified.checked_count > 60 and not verified.mismatches and not verified.missing_paths, verified
without_notes(directory / "model")
snapshot_download("acme/words", repo_type="dataset", local_dir=directory / "set", token=False)
without_notes(directory / "set")

# What this project asks, and the client only at times.
commit = api.model_info(repository).sha
assert api.model_info(repository, revision="v1", expand=["sha"]).sha == commit
assert len(commit) == 40
found = api.get_paths_info(repository, ["tokenizer", "config.json", "none"])
assert [entry.path for entry in found] == ["tokenizer", "config.json"], found

# Refusals, as the client understands them.
download = {"filename": "config.json", "local_dir": directory / "refused"}
refuses(RevisionNotFoundError, api.model_info, repository, revision="none")
refuses(EntryNotFoundError, list, api.list_repo_tree(repository, "no/such/directory"))
refuses(EntryNotFoundError, hf_hub_download, repository, "none", token=False)
refuses(RepositoryNotFoundError, api.model_info, "acme/none")
refuses(RepositoryNotFoundError, api.model_info, "acme/none", token=reader)
refuses(RepositoryNotFoundError, api.model_info, "acme/private")
refuses(RepositoryNotFoundError, api.model_info, "acme/private", token=guest)
refuses(HfHubHTTPError, api.model_info, repository, token="hf_unknown")
refuses(GatedRepoError, hf_hub_download, "acme/gated", **download, token=False)
refuses(GatedRepoError, hf_hub_download, "acme/gated", **download, token=guest)
assert Path(hf_hub_download("acme/gated", **download, token=reader)).read_text() == "{}"
