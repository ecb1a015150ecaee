"""Subjects for schedulers of other libraries that discovery alone can't build or drive.

Each module needs the library of its name and is imported only if it is asked for::

    python -m harness check lr_schedules.libraries.timm

Most schedulers of these libraries need no module here: ``python -m harness check timm.scheduler``.
``README.md`` is a table of all of them, and ``known_failures_of_libraries.toml`` the ledger.
``scripts/libraries/defects`` has a script for each defect, for those who maintain the library.
"""
