"""An accepted association and the row that it leaves."""

from dicomguard import log
from dicomguard.errors import Unavailable
from dicomguard.store import associations
from dicomguard.store.associations import How
from dicomguard.store.db import Store
from dicomguard.store.intake import Sender

_LOG = log.get("scp")


class Association:
    """Who it is with; its row is made when it first stores, so that echoes leave none."""

    def __init__(self, store: Store, sender: Sender, *, process: str) -> None:
        self.sender = sender
        self._store = store
        self._process = process
        self._id = ""

    def row_id(self) -> str:
        """Of its row. Raises `Unavailable`."""
        if not self._id:
            with self._store.begin() as tx:
                self._id = associations.opened(
                    tx,
                    process=self._process,
                    peer=self.sender.peer,
                    calling_ae=self.sender.calling_ae,
                    called_ae=self.sender.called_ae,
                    address=self.sender.address,
                    now=self._store.clock.now(),
                )
        return self._id

    def ended(self, how: How) -> None:
        """Note its end."""
        if not self._id:
            return
        try:
            with self._store.begin() as tx:
                associations.closed(tx, self._id, how, self._store.clock.now())
        except Unavailable as error:
            # It holds its studies until the longest wait; completion still comes.
            _LOG.warning("association.lost", reason=str(error))
