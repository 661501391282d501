"""An accepted association and the row that it leaves."""

from dicomguard import log
from dicomguard.errors import Unavailable
from dicomguard.store import intake
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
            self._id = intake.begin_association(self._store, self.sender, process=self._process)
        return self._id

    def ended(self, how: How) -> None:
        """Note its end."""
        if not self._id:
            return
        try:
            intake.end_association(self._store, self._id, how)
        except Unavailable as error:
            # It holds its studies until the longest wait; completion still comes.
            _LOG.warning("association.lost", reason=str(error))
