"""The examples' command lines."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from stdlib import report


def run_as_script(main: Callable[..., Any], description: str | None) -> None:
    """Run an example's `main(quick, folder)` with the options of the command line."""
    options = arguments(description).parse_args()
    main(quick=options.quick, folder=options.outputs)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all examples have."""
    return report.arguments(description, "--quick", "fewer steps, for a look")
