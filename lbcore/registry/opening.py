"""Which registry a service runs: `--store` read, with the default of a file beside the configuration."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from lbcore.directory import Directory
from lbcore.registration import RegistrySettings, store_name
from lbcore.registry.embedded import EmbeddedRegistry
from lbcore.registry.journal import Journal
from lbcore.registry.registry import RegistryStore

__all__ = ["make_registry_store"]

logger = logging.getLogger(__name__)


def make_registry_store(
    store: str, config: Path, directory: Directory, settings: RegistrySettings | None = None
) -> RegistryStore:
    """The registry that `store` names, or else the settings' own. Raises `InvalidSetting`.

    `etcd://HOST,.../PREFIX` (`lbcore.etcd.address`) keeps registrations there, `sqlite:PATH` in that file, `memory`
    nowhere; empty: in `NAME.registry.db` beside the configuration file NAME.yaml.
    """
    store = store_name(store, "--store") or (settings or RegistrySettings()).store
    if store.startswith(("etcd:", "etcds:")):
        from lbcore.etcd.address import EtcdAddress
        from lbcore.registry.etcd.memory import RegistryMemory
        from lbcore.registry.etcd.registry import EtcdRegistry

        address = EtcdAddress.parse(store, "store")
        max_age = (settings or RegistrySettings()).max_ttl
        memory = RegistryMemory(config.with_name(f"{config.stem}.registry.json"), str(address), max_age)
        return EtcdRegistry(directory, address, settings, memory=memory)
    if store == "memory":
        return EmbeddedRegistry(directory, settings)
    if store.startswith("sqlite:"):
        return EmbeddedRegistry(directory, settings, Journal(Path(store[len("sqlite:") :])))
    path = config.with_name(f"{config.stem}.registry.db")
    if not path.exists() and not os.access(path.parent, os.W_OK):
        logger.warning("%s cannot be written: registrations are kept in memory alone; --store names a file", path)
        return EmbeddedRegistry(directory, settings)
    return EmbeddedRegistry(directory, settings, Journal(path))
