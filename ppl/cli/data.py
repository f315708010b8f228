"""Data files: named arrays from CSV, NPZ and NetCDF, and draws back into them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from ppl.errors import DataError


def read_data(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name: columns of a CSV with a header, arrays of an NPZ, variables of
    a NetCDF file.

    A column of whole numbers is of integers; one of `true` and `false` of booleans.

    Raises:
        DataError: the file has another ending, is empty, or a column is no numbers.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".npz": _read_npz, ".nc": _read_netcdf, ".h5": _read_netcdf}
    if path.suffix not in readers:
        raise DataError(f"{path}: data are read from {', '.join(readers)} files")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    return readers[path.suffix](path)


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        raise DataError(f"{path} has no rows", fix="a CSV file begins with the columns' names")
    header, body = [name.strip() for name in rows[0]], [row for row in rows[1:] if row]
    for i, row in enumerate(body, 2):
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {i}: {len(row)} entries", because=f"there are {len(header)} columns"
            )
    columns = zip(*body, strict=True)
    return {n: _numbers(path, n, c) for n, c in zip(header, columns, strict=True)}


def _numbers(path: Path, name: str, column: tuple[str, ...]) -> np.ndarray:
    texts = [text.strip() for text in column]
    lower = {text.lower() for text in texts}
    if lower <= {"true", "false"}:
        return np.array([text.lower() == "true" for text in texts])
    for kind in (int, float):
        try:
            return np.array([kind(text or "nan") for text in texts])
        except ValueError:
            continue
    wrong = next(text for text in texts if not _is_number(text))
    raise DataError(f"{path}: column {name!r} has {wrong!r}, which is no number")


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def _read_netcdf(path: Path) -> dict[str, np.ndarray]:
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "NetCDF files need xarray: install the extra with `pip install 'ppl[arviz]'` or "
            "`uv sync --extra arviz`"
        ) from error
    with xarray.open_dataset(path) as file:
        return {str(n): np.asarray(v.values) for n, v in file.variables.items()}


def write_draws(path: str | Path, draws: dict[str, Any]) -> None:
    """Write arrays by name to an NPZ or NetCDF file.

    Raises:
        DataError: the file has another ending.
    """
    path = Path(path)
    arrays = {name: np.asarray(value) for name, value in draws.items()}
    if path.suffix == ".npz":
        named: dict[str, Any] = {name.replace("/", "."): x for name, x in arrays.items()}
        np.savez(path, **named)
    elif path.suffix == ".nc":
        import xarray

        variables = {
            name.replace("/", "."): (("draw", *(f"{name}_{i}" for i in range(x.ndim - 1))), x)
            for name, x in arrays.items()
        }
        xarray.Dataset(variables).to_netcdf(path, engine="scipy")  # which JAX brings
    else:
        raise DataError(f"{path}: draws are written to .npz and .nc files")
