"""The README: its code runs, its commands are there, and the files that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
CODE = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(CODE)))
def test_code(number, capsys):
    # With the README's lines in tracebacks, and in what `explain` prints.
    start = README[: README.index(CODE[number])].count("\n")
    namespace = {}
    exec(compile("\n" * start + CODE[number], "README.md", "exec"), namespace)
    if number == 0:
        fit = namespace["fit"]
        assert 2.5 < fit.params["m"] < 3.5
        assert fit.params["p"].argmax() == 4 and fit.params["p"][4] > 0.95
        assert fit.sample(1_000)["outlier"].shape == (1_000, 20)
        assert namespace["grad"]["p"].shape == (20,)
        assert "README.md" in capsys.readouterr().out


def test_commands():
    commands = re.findall(r"^python .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert all(c.startswith("python -m pip install -q uv && python -m uv run") for c in commands)
    assert commands[0].endswith(" python -m examples") and " pytest" in commands[1]


def test_files():
    names = set(re.findall(r"`([\w/]+(?:\.py|/))`", README)) - {"outputs/"}
    missing = [n for n in names if not any((base / n).exists() for base in (ROOT, ROOT / "tests"))]
    assert not missing and len(names) > 10
