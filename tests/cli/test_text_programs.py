"""The commands on text programs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from ppl import vi
from ppl.cli.main import app
from ppl.cli.target import load_target

GOOD = """data n_of: real[n] = [1, 2]
model m(n_of: real[n]) { x ~ normal(0, 1)
y ~ normal(x, 1) }
guide q() { param a: real = 0 x ~ normal(a, 1) }
objective bound(n_of: real[n]) { return elbo(m(n_of), q(), {y: n_of[0]}) }
"""


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.ppl"
    path.write_text(GOOD)
    return path


def run(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_check(good, tmp_path):
    assert run("check", good).exit_code == 0
    bad = tmp_path / "bad.ppl"
    bad.write_text("model m() {\n  x ~ nromal(0, 1)\n  y ~ normal(0, zz)\n}")
    result = run("check", good, bad)
    assert result.exit_code == 1
    assert f"{bad}:2:7: error: unknown function or distribution 'nromal'" in result.output
    assert f"{bad}:3:17: error: unknown name 'zz'" in result.output
    missing = run("check", tmp_path / "none.ppl")
    assert missing.exit_code == 1 and "none.ppl" in missing.output


def test_fmt(good):
    assert run("fmt", "--check", good).exit_code == 1
    assert good.read_text() == GOOD
    assert run("fmt", good).exit_code == 0
    assert "\n  x ~ normal(0, 1)\n  y ~ normal(x, 1)\n}" in good.read_text()
    assert run("fmt", "--check", good).exit_code == 0


def test_explain(good):
    result = run("explain", good)
    assert "q/x" in result.output and "good.ppl:4" in result.output


def test_fit(good, tmp_path):
    result = run("fit", good, "--steps", 400, "--learning-rate", 0.05, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    result = vi.load(tmp_path / "fit.ppl_fit", load_target(str(good)))
    np.testing.assert_allclose(result.params["a"], 0.5, atol=0.2)
    assert (tmp_path / "report.html").exists()


def test_sample(good, tmp_path):
    """A model of the file, with its arguments from the file's data."""
    out = tmp_path / "draws.npz"
    assert run("sample", f"{good}:m", "-n", 7, "--out", out).exit_code == 0
    with np.load(out) as file:
        draws = dict(file)
    assert draws["x"].shape == draws["y"].shape == (7,)
    assert len(set(draws["x"])) == 7


def test_errors_are_messages(good):
    result = run("fit", f"{good}:bund")
    assert result.exit_code == 1 and "did you mean 'bound'?" in result.output
    assert "Traceback" not in result.output


def test_check_and_fmt_do_not_load_jax(good):
    code = (
        "import sys; from ppl.cli.main import app\n"
        f"app(['check', {str(good)!r}], standalone_mode=False)\n"
        f"app(['fmt', {str(good)!r}], standalone_mode=False)\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_highlighter_is_found_and_knows_all_words():
    from pygments.token import Error, Keyword, Name

    from ppl.syntax.highlight import PplLexer
    from ppl.syntax.parser import tables

    found = list(PplLexer().get_tokens(GOOD + "\nconst c = not 1.5e-3 @ x # end"))
    assert not [t for t, _ in found if t is Error]
    assert (Keyword.Declaration, "model") in found and (Name.Class, "normal") in found
    for word in tables().words:
        kinds = [t for t, text in PplLexer().get_tokens(word) if text == word]
        assert kinds and kinds[0] not in (Name, Error), word
