"""Every experiment of the standard library in its short version: all claims are met."""

import importlib
from pathlib import Path

import pytest

import stdlib

PAPERS = sorted(p.parent.name for p in Path(stdlib.__path__[0]).glob("*/experiment.py"))


@pytest.mark.slow
@pytest.mark.parametrize("paper", PAPERS)
def test_the_short_version_meets_its_claims(paper, tmp_path):
    claims = importlib.import_module(f"stdlib.{paper}.experiment").main(True, tmp_path)
    assert claims
    assert [c for c in claims if not c.met] == []
    assert list(tmp_path.glob("*.png"))
