"""The project's database: data versions, runs, what they left and how they were measured.

`open.open_store` opens it (SQLite in `tunesmith.db`, or PostgreSQL by URL) and brings it up to date; `store.Store` is
what one can do with it; `rows` holds the plain values that come out. Nothing but this room knows of SQLAlchemy.
"""
