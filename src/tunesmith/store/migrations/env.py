"""Run the steps on the connection, and inside the transaction, that `store/open.py` hands over."""

from __future__ import annotations

from alembic import context

from tunesmith.store.open import VERSION_TABLE
from tunesmith.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
