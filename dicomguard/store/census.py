"""How many of everything, for metrics."""

from sqlalchemy import and_, func, select

from dicomguard.store.db import Tx
from dicomguard.store.tables import analysis, instance, study


def instances(tx: Tx) -> dict[str, int]:
    """Kept instances by state."""
    rows = tx.execute(select(instance.c.state, func.count()).group_by(instance.c.state))
    return {row[0]: row[1] for row in rows}


def categories(tx: Tx) -> dict[str, int]:
    """Studies by the category of their current revision."""
    current = and_(analysis.c.study_key == study.c.study_key, analysis.c.number == study.c.current_revision)
    rows = tx.execute(select(analysis.c.category, func.count()).join(study, current).group_by(analysis.c.category))
    return {row[0]: row[1] for row in rows}
