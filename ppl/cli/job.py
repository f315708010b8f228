"""What to do: a program, data and options put together."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import optax
from genjax.core import GFI

from ppl import vi
from ppl.cli.data import read_data
from ppl.cli.target import load_target
from ppl.compiler.objective import Objective, as_objective
from ppl.errors import AddressError, PplError, suggestion
from ppl.lang.seed import seed
from ppl.vi.guides._latents import nest

GUIDES = ("mean_field", "full_rank", "low_rank", "structured", "flow", "delta", "amortised")

_PROGRAM = ("observed", "args", "guide", "guide_args", "data")
_OPTIONS = [
    name
    for name in inspect.signature(vi.fit).parameters
    if name not in ("program", "data", "callbacks", "mesh", "params", "key", "progress")
]


def read_config(path: str | Path | None) -> dict[str, Any]:
    """The options in a JSON file: those of `vi.fit`, and how a model's data are called.

    Raises:
        PplError: it is no JSON object, or has an unknown key.
    """
    if path is None:
        return {}
    try:
        config = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise PplError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise PplError(f"{path}: a configuration is a JSON object")
    known = [*_PROGRAM, *_OPTIONS, "seed"]
    for name in config:
        if name not in known:
            raise PplError(f"{path} has an unknown key {name!r}", because=suggestion(name, known))
    return config


def load_objective(
    program: str, data_path: str | Path | None, config: Mapping[str, Any]
) -> Objective:
    """The objective program that a command is about.

    `program` names an objective; or a function from named arrays (the data file's) to one; or a
    model, whose arrays the configuration names: `{"observed": {"address": "column"}, "args":
    ["column", 3.0], "guide": "full_rank"}`.

    Raises:
        PplError: something is missing, or named wrongly.
    """
    target = load_target(program)
    data_path = data_path or config.get("data")
    data = {} if data_path is None else read_data(data_path)
    if isinstance(target, Objective):
        args = _arrays(config.get("args", ()), data)
        return target if not args else _with_data(target, args)
    if isinstance(target, GFI):
        return _of_model(target, data, config)
    if not callable(target):
        raise PplError(
            f"{program} is a {type(target).__name__}",
            fix="name a model, an objective, or a function from data to an objective",
        )
    made = target(data) if inspect.signature(target).parameters else target()
    if isinstance(made, Objective):
        return made
    raise PplError(
        f"{program} returned a {type(made).__name__}",
        fix="a function that is named on the command line takes the data, a dictionary of arrays, "
        "and returns an objective, vi.elbo(...)",
    )


def _of_model(model: GFI, data: Mapping[str, Any], config: Mapping[str, Any]) -> Objective:
    if "observed" not in config:
        raise PplError(
            "a model needs to be told its data",
            fix='give --config with {"observed": {"ADDRESS": "COLUMN"}, "args": ["COLUMN", ...]}',
        )
    observed = {address: _array(name, data) for address, name in config["observed"].items()}
    guide_args = config.get("guide_args")
    return vi.elbo(
        model,
        _guide(config.get("guide"), config),
        observed=nest(observed),
        args=_arrays(config.get("args", ()), data),
        guide_args=None if guide_args is None else _arrays(guide_args, data),
    )


def _guide(given: Any, config: Mapping[str, Any]) -> Any:
    """A guide from its name, `{"name": ..., options}`, or a target."""
    if given is None:
        return None
    name, options = (given, {}) if isinstance(given, str) else (given.get("name"), dict(given))
    options.pop("name", None)
    if isinstance(name, str) and ":" in name:
        return load_target(name)
    if name not in GUIDES:
        raise PplError(f"there is no guide {name!r}", because=suggestion(str(name), GUIDES))
    return functools.partial(getattr(vi, name), **options)


def _arrays(names: Any, data: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(_array(name, data) for name in names)


def _array(name: Any, data: Mapping[str, Any]) -> Any:
    """An array of the data, or the value itself if it is no name."""
    if not isinstance(name, str):
        return name
    if name not in data:
        raise AddressError(f"the data has no {name!r}", because=suggestion(name, data))
    return data[name]


def _with_data(objective: Objective, args: tuple[Any, ...]) -> Objective:
    return as_objective(functools.partial(objective, *args))


def prior_draws(
    program: str, data_path: str | Path | None, config: Mapping[str, Any], key: Any, n: int
) -> Any:
    """Draws of a model with the configuration's arguments."""
    target = load_target(program)
    model = target.model if isinstance(target, Objective) else target
    if not isinstance(model, GFI):
        raise PplError(f"{program} is no model to draw from", fix="give --fit, a saved fit")
    data_path = data_path or config.get("data")
    data = {} if data_path is None else read_data(data_path)
    args = _arrays(config.get("args", ()), data)
    draw = lambda key: seed(lambda: model.simulate(*args).get_choices())(key)
    return jax.jit(jax.vmap(draw))(jax.random.split(key, n))


def fit_options(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `vi.fit`: those given on the command line beat the configuration's."""
    options = {name: config[name] for name in _OPTIONS if name in config}
    options |= {name: value for name, value in given.items() if value is not None}
    if "optimizer" in options:
        options["optimizer"] = _optimizer(options["optimizer"])
    return options


def _optimizer(given: Any) -> Any:
    """An optax optimiser from `"adam"`, a learning rate, or `{"name": ..., options}`."""
    if isinstance(given, int | float):
        return optax.adam(float(given))
    name, options = (given, {}) if isinstance(given, str) else (given.get("name"), dict(given))
    options.pop("name", None)
    own = {"natural_gradient": vi.natural_gradient}
    maker: Any = own.get(str(name)) or getattr(optax, str(name), None)
    if not callable(maker):
        raise PplError(f"optax has no optimiser {name!r}", fix='"optimizer": {"name": "adam", ...}')
    settings: dict[str, Any] = {"learning_rate": 1e-2} | options
    return maker(**settings)
