"""The command line: `ppl fit|sample|check|explain PROGRAM`. Needs the `cli` extra.

`main` has the commands, `target` finds programs, `data` reads files, `job` puts them together
with the options, `report` writes what came out.
"""
