"""PostgreSQL through its own tools: `pg_dump` takes one consistent snapshot of node and work tables, `pg_restore` puts
it into an empty database.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError

from dicomguard.child import Child
from dicomguard.errors import Refused, Unavailable

_WITHIN_S = 6 * 3600.0


def write(url: str, target: Path) -> None:
    """A dump of the database in the custom format."""
    _run("pg_dump", ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"], url)


def restore(url: str, source: Path) -> None:
    """Into a database without our tables, in one transaction."""
    _run("pg_restore", ["--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(source)], url)


def read_through(source: Path) -> None:
    """Read a dump to its end without a database."""
    _run("pg_restore", ["--file=/dev/null", str(source)], None)


def is_empty(url: str) -> bool:
    """Whether the database has none of our tables."""
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    try:
        return not inspect(engine).has_table("meta")
    except DatabaseError as error:
        raise Unavailable(f"The database does not answer: {error.orig}. Look after it.") from None
    finally:
        engine.dispose()


@contextmanager
def scratch(url: str) -> Iterator[str | None]:
    """The URL of a database for the block; None when the role may not create one."""
    name = f"dicomguard_check_{secrets.token_hex(6)}"
    address = make_url(url).set(drivername="postgresql+psycopg")
    engine = create_engine(address, isolation_level="AUTOCOMMIT")
    try:
        try:
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
        except DatabaseError:
            yield None
            return
        try:
            yield address.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


def _run(program: str, arguments: list[str], url: str | None) -> None:
    path = shutil.which(program)
    if path is None:
        raise Refused(f"{program} is not installed. Install the Debian package postgresql-client.")
    address: URL | None = None if url is None else make_url(url)
    environment: dict[str, str] = {}
    if address is not None:
        # The password stands in no process list.
        asked = address.query.get("password", "")
        environment["PGPASSWORD"] = address.password or (asked if isinstance(asked, str) else asked[0])
        options = {name: value for name, value in address.query.items() if name != "password"}
        # Built anew: `set` takes None for "as it is".
        bare = URL.create("postgresql", address.username, None, address.host, address.port, address.database, options)
        arguments = ["--no-password", f"--dbname={bare.render_as_string(hide_password=False)}", *arguments]
    with Child.start([path, *arguments], memory_bytes=None, cpu_s=None, env_extra=environment) as child:
        if not child.wait(_WITHIN_S):
            raise Unavailable(f"{program} did not end within {_WITHIN_S / 3600:.0f} hours. Look after the database.")
        if child.exit_status != 0:
            raise Unavailable(f"{program} {child.exit_reason()}; its words stand above. Correct it and start again.")
