"""Which weights judge, and whether they can."""

from pathlib import Path

from dicomguard.analyze import weights
from dicomguard.analyze.card import Card
from dicomguard.errors import Broken, Refused
from dicomguard.store import models
from dicomguard.store.db import Store, Tx


def weights_in_use(store: Store, tx: Tx, configured: Path | None) -> Path:
    """The file named in the configuration, else of the approved model, else the one that ships with the package."""
    return configured or models.weights(store, tx) or weights.shipped()


def card(store: Store, tx: Tx, configured: Path | None, *, id: str | None = None) -> Card | None:
    """Model card of the weights that judge; None without one, or where they cannot be read or are not those of `id`."""
    try:
        head = weights.read_head(weights_in_use(store, tx, configured))
    except (Refused, Broken):
        return None
    return head.card if id in (None, head.id) else None


def fitting(path: Path) -> str:
    """Id of a model that this version can run; raises `Refused` or `Broken` with what to do where it cannot."""
    head = weights.read_head(path)
    weights.check(head, f"The model {head.id} in use")
    return head.id
