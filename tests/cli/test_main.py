"""The command line, in this process (one test in another: `--help` imports no JAX)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

from ppl.cli.data import read_data, write_draws
from ppl.cli.main import app
from ppl.cli.target import load_target
from ppl.errors import AddressError, DataError

HERE = Path(__file__).parent
FILE = str(HERE / "model_file.py")


@pytest.fixture
def data(tmp_path):
    xs = np.linspace(-1, 1, 20)
    lines = ["x,y", *(f"{x:.4f},{1.5 * x + 0.1 * np.sin(20 * x):.4f}" for x in xs)]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(lines))
    return path


def run(*args, code=0):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == code, (result.output, result.exception)
    return result.output


def test_fit_and_sample(data, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {
                "observed": {"y": "y"},
                "args": ["x"],
                "guide": "full_rank",
                "steps": 400,
                "optimizer": {"name": "adam", "learning_rate": 0.02},
                "snapshots": 5,
            }
        )
    )
    out = tmp_path / "out"
    model = f"{FILE}:line"
    text = run("fit", model, "--data", data, "--config", config, "--out", out, "--num-samples", 4)
    assert "bound: " in text and "slope" in text and "k-hat" in text
    page = (out / "report.html").read_text()
    for part in ("Loss", "Marginals", "Predictions", "Parameters", "data:image/png;base64,"):
        assert part in page
    draws = tmp_path / "draws.npz"
    saved = ["--fit", out / "fit.ppl_fit", "--data", data, "--config", config]
    run("sample", model, *saved, "-n", 500, "--out", draws)
    slope = np.load(draws)["slope"]
    assert slope.shape == (500,) and abs(slope.mean() - 1.5) < 0.2
    run("sample", model, *saved, "-n", 7, "--predictive", "--out", tmp_path / "new.nc")
    assert xarray.open_dataset(tmp_path / "new.nc")["y"].shape == (7, 20)
    run("sample", model, "--data", data, "--config", config, "-n", 9, "--out", draws)
    assert np.load(draws)["y"].shape == (9, 20)


def test_functions_of_data_and_objectives(data, tmp_path):
    program = f"{FILE}:from_data"
    assert "parameters: full_rank.loc" in run("check", program, "--data", data)
    assert "reparam" in run("explain", program, "--data", data)
    out = ["--out", tmp_path, "--report", "png", "--quiet", "--learning-rate", "0.05"]
    run("fit", f"{FILE}:own", "--steps", 200, "--seed", 3, *out)
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "fit.ppl_fit").exists()


@pytest.mark.parametrize(
    "args, message",
    [
        ([f"{FILE}:lime"], "did you mean 'line'?"),
        (["nothing"], "give module:name"),
        (["no_such_module:x"], "No module named"),
        ([f"{FILE}:NUMBER"], "is a int"),
        ([f"{FILE}:line"], "a model needs to be told its data"),
        ([f"{FILE}:from_data", "--data", "gone.csv"], "there is no file gone.csv"),
    ],
)
def test_mistakes_are_explained(args, message):
    text = run("check", *args, code=1)
    assert message in text and "Traceback" not in text


def test_wrong_configurations(data, tmp_path):
    config = tmp_path / "config.json"
    for content, message in [
        ({"step": 3}, "did you mean 'steps'?"),
        ({"observed": {"y": "z"}}, "the data has no 'z'"),
        ({"observed": {"y": "y"}, "args": ["x"], "guide": "fullrank"}, "did you mean 'full_rank'?"),
        ([], "is a JSON object"),
    ]:
        config.write_text(json.dumps(content))
        args = ["--data", data, "--config", config]
        assert message in run("check", f"{FILE}:line", *args, code=1)


def test_data_files(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a, b,c\n1,0.5,true\n2,,false\n")
    table = read_data(path)
    assert table["a"].dtype.kind == "i" and table["c"].dtype == bool
    np.testing.assert_array_equal(table["b"], [0.5, np.nan])
    for name in ("x.npz", "x.nc"):
        write_draws(tmp_path / name, {"layer/z": np.ones((3, 2))})
        assert read_data(tmp_path / name)["layer.z"].shape == (3, 2)
    xarray.Dataset({"z": (("row",), np.arange(3.0))}).to_netcdf(
        tmp_path / "new.nc", engine="h5netcdf"
    )
    np.testing.assert_array_equal(read_data(tmp_path / "new.nc")["z"], [0, 1, 2])
    for content, message in [("a\n", "no rows"), ("a\nx\n", "no number"), ("a,b\n1\n", "line 2")]:
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            read_data(path)
    with pytest.raises(DataError, match="are read from"):
        read_data(tmp_path / "x.txt")


def test_targets():
    assert load_target("tests.cli.model_file:NUMBER") == 3
    with pytest.raises(AddressError, match="has no 'NUMBERS'"):
        load_target("tests.cli.model_file:NUMBERS")


def test_help_imports_no_jax():
    code = (
        "import sys, ppl.cli.main as m\n"
        "assert 'jax' not in sys.modules\n"
        "from ppl import PplError, normal, vi, gen\n"
        "import ppl; assert 'normal' in dir(ppl) and ppl.vi is vi\n"
        "namespace = {}; exec('from ppl import *', namespace)\n"
        "assert namespace['gen'] is gen and 'vi' in namespace\n"
        "try: ppl.nomal\n"
        "except AttributeError as e: assert 'nomal' in str(e)\n"
        "else: raise SystemExit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parents[1])
