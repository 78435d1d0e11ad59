"""The storages by the name that `dataset.json` has in `writer`; each knows its own folder of a dataset."""

from vrekit.core.registry import Registry

STORAGES = Registry(
    "storage",
    {
        "lance": "vrekit.writers.lance.storage:LanceStorage",
        "memory": "vrekit.writers.memory.storage:MemoryStorage",
        "webdataset": "vrekit.writers.webdataset.storage:TarStorage",
    },
    group="vrekit.storages",
)
