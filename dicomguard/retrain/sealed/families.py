"""The sealed families, for `evaluate --sealed` alone: looked at once per release, never to choose anything by."""

from collections.abc import Mapping
from types import MappingProxyType

from dicomguard.retrain.sealed import kspace
from dicomguard.retrain.tamper.families import Family

SEALED: Mapping[str, Family] = MappingProxyType(
    {
        "acquisition": Family(name="acquisition", group="sealed", kinds=("added", "removed"), forge=kspace.forge),
    }
)
