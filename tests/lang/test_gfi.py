"""Every combinator, alone and nested, against the laws of the generative function interface."""

from __future__ import annotations

import genjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppl.lang.observed import flat_choices
from ppl.lang.seed import seed

from .programs import CASES


def operations(case):
    """One run of all operations of the interface, at the case's arguments and the new ones."""
    p, kw = case.program, case.kwargs

    def run(args, new_args):
        tr = p.simulate(*args, **kw)
        choices = tr.get_choices()
        out = {"choices": choices, "score": tr.get_score(), "retval": tr.get_retval()}
        out["assess"] = p.assess(choices, *args, **kw)
        out["assess new"] = p.assess(choices, *new_args, **kw)
        full, out["weight full"] = p.generate(choices, *args, **kw)
        out["full"] = full.get_choices()
        some, out["weight some"] = p.generate(case.some, *args, **kw)
        out["some"] = some.get_choices()
        out["score some"] = some.get_score()
        out["assess some"] = p.assess(some.get_choices(), *args, **kw)[0]
        none, out["weight none"] = p.generate(None, *args, **kw)
        out["assess none"] = p.assess(none.get_choices(), *args, **kw)[0]
        updated, out["weight update"], out["discard"] = p.update(tr, case.some, *new_args, **kw)
        out["updated"] = updated.get_choices()
        out["score updated"] = updated.get_score()
        out["assess updated"] = p.assess(updated.get_choices(), *new_args, **kw)
        out["retval updated"] = updated.get_retval()
        kept, out["weight keep"], _ = p.regenerate(tr, genjax.sel(), *new_args, **kw)
        out["kept"] = kept.get_choices()
        if case.normalised:
            redrawn, out["weight redraw"], _ = p.regenerate(tr, genjax.sel(()), *new_args, **kw)
            out["redrawn"] = redrawn.get_choices()
            out["score redrawn"] = redrawn.get_score()
            out["assess redrawn"] = p.assess(redrawn.get_choices(), *new_args, **kw)[0]
        return out

    return run


@pytest.fixture(scope="module", params=list(CASES))
def ran(request):
    """(case, result of all operations)."""
    case = CASES[request.param]
    out = jax.jit(seed(operations(case)))(jax.random.key(3), case.args, case.new_args)
    return case, jax.tree.map(np.asarray, out)


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), a, b)


def test_simulate_agrees_with_assess(ran):
    _, out = ran
    log_density, retval = out["assess"]
    close(out["score"], -log_density)
    close(out["retval"], retval)
    assert np.shape(out["score"]) == ()


def test_generate_of_all_choices_weighs_their_density(ran):
    _, out = ran
    close(out["weight full"], out["assess"][0])
    close(out["full"], out["choices"])


def test_generate_keeps_what_is_given(ran):
    case, out = ran
    close(out["score some"], -out["assess some"])
    some = flat_choices(out["some"])
    for address, value in flat_choices(case.some).items():
        close(some[address], value)
    assert jax.tree.structure(out["some"]) == jax.tree.structure(out["choices"])


def test_generate_of_nothing_weighs_nothing(ran):
    case, out = ran
    if case.normalised:
        close(out["weight none"], 0.0)


def test_update_weighs_the_change(ran):
    case, out = ran
    log_density, retval = out["assess updated"]
    close(out["score updated"], -log_density)
    close(out["retval updated"], retval)
    close(out["weight update"], log_density - out["assess"][0])
    updated, old = flat_choices(out["updated"]), flat_choices(out["choices"])
    given = flat_choices(case.some)
    assert updated.keys() == old.keys()
    for address, value in updated.items():
        close(value, given.get(address, old[address]))
    discard = flat_choices(out["discard"])
    for address in given:
        close(discard[address], old[address])


def test_regenerate_of_nothing_only_reweighs(ran):
    _, out = ran
    close(out["kept"], out["choices"])
    close(out["weight keep"], out["assess new"][0] - out["assess"][0])


def test_regenerate_of_all_redraws(ran):
    case, out = ran
    if case.normalised:
        close(out["weight redraw"], 0.0)
        close(out["score redrawn"], -out["assess redrawn"])
        new, old = flat_choices(out["redrawn"]), flat_choices(out["choices"])
        assert all(np.all(new[a] != old[a]) for a in old)


@pytest.mark.parametrize("name", list(CASES))
def test_traces_of_one_program_have_one_structure(name):
    case = CASES[name]

    def structures(*args):
        tr = case.program.simulate(*args, **case.kwargs)
        new = case.program.regenerate(tr, genjax.sel(), *args, **case.kwargs)[0]
        trees.extend([jax.tree.structure(tr), jax.tree.structure(new)])
        return jnp.zeros(())

    trees: list = []
    jax.eval_shape(structures, *case.args)
    assert trees[0] == trees[1]
