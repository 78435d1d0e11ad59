"""Where the open shards of datasets behind URLs lie: local scratch, apart from the mirror of their metadata.

    $XDG_CACHE_HOME/vrekit/scratch/<digest of the URL>/<digest of what is computed>/shards/<video_id>/.<group>-<cell>.…

The second digest covers the video's content and everything that decides the stored values, so that what is left of a
deleted dataset never becomes part of another one at the same URL.
"""

import hashlib
from pathlib import Path

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.remote import RemoteDataset
from vrekit.core.files import storage_errors
from vrekit.core.spec import canonical_json
from vrekit.writers.webdataset.mirror_cache import cache_folder, copy_home
from vrekit.writers.webdataset.sidecars import PARTIAL_SUFFIX, SHARDS_FOLDER


def scratch_home(remote: RemoteDataset) -> Path:
    """Return the folder of a dataset's open shards, made if it is not there; only this account may write to it."""
    base = remote.scratch if remote.scratch is not None else cache_folder().with_name("scratch")
    return copy_home(remote.store.location, base)


def scratch_homes(remote: RemoteDataset) -> list[Path]:
    """Return the folders with open shards of a dataset."""
    home = scratch_home(remote)
    with storage_errors(home):
        return sorted(path for path in home.iterdir() if path.is_dir())


def cell_home(remote: RemoteDataset, manifest: Manifest, video_id: str, group: str) -> Path:
    """Return the folder of the open shards of a video and a group of representations."""
    video = manifest.videos.get(video_id)
    facts = {
        "video": [video_id, video.fingerprint if video else ""],
        "group": [
            group,
            sorted((name, manifest.representations[name].config_hash) for name in _group(manifest, group)),
        ],
        "shard_frames": manifest.shard_frames,
    }
    home = scratch_home(remote) / hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]
    with storage_errors(home):
        home.mkdir(mode=0o700, exist_ok=True)
    return home


def _group(manifest: Manifest, group: str) -> list[str]:
    return manifest.groups.get(group, [])


def open_partials(home: Path, video_id: str = "*") -> list[Path]:
    """Return the open shards below a folder of `scratch_homes`."""
    return sorted((home / SHARDS_FOLDER).glob(f"{video_id}/.*.{PARTIAL_SUFFIX}"))
