"""Where the open shards of datasets behind URLs lie: local scratch, apart from the mirror of their metadata.

    SCRATCH/<digest of the URL>/<digest of what is computed>/shards/<video_id>/.<group>-<cell>.…

SCRATCH is `$XDG_CACHE_HOME/vrekit/scratch`, or `vrekit-<user id>` in the folder that `--scratch` names. The second
digest covers the video's content and everything that decides the stored values, so that what is left of a deleted
dataset never becomes part of another one at the same URL.
"""

import hashlib
import os
from pathlib import Path

from vrekit.catalog.manifest import Manifest
from vrekit.catalog.remote import RemoteDataset
from vrekit.core.files import storage_errors
from vrekit.core.spec import canonical_json
from vrekit.writers.webdataset.mirror_cache import cache_folder, copy_home
from vrekit.writers.webdataset.sidecars import PARTIAL_SUFFIX, SHARDS_FOLDER


def scratch_home(remote: RemoteDataset) -> Path:
    """Return the folder of a dataset's open shards, made if it is not there; only this account may write to it."""
    own = f"vrekit-{os.geteuid()}"  # several accounts may share a scratch disk
    base = cache_folder().with_name("scratch") if remote.scratch is None else remote.scratch / own
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
            sorted((name, manifest.representations[name].config_hash) for name in manifest.groups.get(group, [])),
        ],
        "shard_frames": manifest.shard_frames,
    }
    home = scratch_home(remote) / hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:16]
    with storage_errors(home):
        home.mkdir(mode=0o700, exist_ok=True)
    return home


def open_partials(home: Path, video_id: str = "*") -> list[Path]:
    """Return the open shards below a folder of `scratch_homes`."""
    return sorted((home / SHARDS_FOLDER).glob(f"{video_id}/.*.{PARTIAL_SUFFIX}"))
