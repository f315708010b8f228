"""Fits on disk: what was fitted, without the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ppl.compiler.estimator import Estimator
from ppl.compiler.estimator import compile as compile_objective
from ppl.errors import CheckpointError
from ppl.vi._identity import describe_params, differences
from ppl.vi._inputs import bind_data
from ppl.vi._precision import precision
from ppl.vi.result import Fit

_FORMAT = "ppl fit 2"


def save(fit: Fit, path: str | Path) -> Path:
    """Write a fit's parameters, losses and key to one file (see `load`).

    The program and the data are not written: they are given again when it is loaded.
    """
    path = Path(path)
    header = {
        "format": _FORMAT,
        "objective": fit.objective.name,
        "parameters": describe_params(fit.params),
        "steps": fit.steps,
        "interrupted": fit.interrupted,
        "seconds": fit.seconds,
        "compile_seconds": fit.compile_seconds,
        "float64": fit.float64,
        "key": None if fit.key is None else _describe_key(fit.key),
    }
    arrays = fit.params, np.asarray(fit.losses)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        eqx.tree_serialise_leaves(file, arrays)
    return partial.replace(path)


def load(path: str | Path, program: Any, data: Any = None) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Args:
        path: of the file.
        program: the objective program, or the estimator, that was fitted.
        data: as for `vi.fit`.

    Raises:
        CheckpointError: the file is no fit, or of a program with other parameters.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            header = json.loads(file.readline())
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            raise CheckpointError(f"{path} is no fit that this version can read")
        with precision(header["float64"]):
            estimator = program if isinstance(program, Estimator) else compile_objective(program)
            data = bind_data(estimator.objective, data)
            like = estimator.init(jax.random.key(0), *data)
            if found := differences(_named(header["parameters"]), _named(describe_params(like))):
                raise CheckpointError(
                    f"{path} is a fit of another program",
                    because="; ".join(found),
                    fix=f"load it with the program that was fitted ({header['objective']})",
                )
            losses = np.zeros(header["steps"], np.float64 if header["float64"] else np.float32)
            params, losses = eqx.tree_deserialise_leaves(file, (like, losses))
    return Fit(
        params=params,
        losses=losses,
        estimator=estimator,
        objective=estimator.objective,
        data=data,
        key=None if header["key"] is None else _made_key(**header["key"]),
        interrupted=header["interrupted"],
        seconds=header["seconds"],
        compile_seconds=header["compile_seconds"],
        float64=header["float64"],
    )


def _named(params: dict[str, str]) -> dict[str, Any]:
    return {**{f"parameter {n!r}": d for n, d in params.items()}, "program": []}


def _describe_key(key: jax.Array) -> dict[str, Any]:
    words = np.asarray(jax.random.key_data(key)).tolist()
    return {"generator": str(jax.random.key_impl(key)), "words": words}


def _made_key(generator: str, words: list[int]) -> jax.Array:
    return jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32), impl=generator)
