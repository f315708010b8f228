"""Tables of draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ppl.vi.summary import summarize


def test_moments_and_quantiles(key):
    x = 3.0 + 2.0 * jax.random.normal(key, (20_000,))
    (row,) = summarize({"x": x}, max_entries=5).rows
    assert row.address == "x"
    found = (row.mean, row.sd, row.q5, row.median, row.q95)
    expected = (3.0, 2.0, 3 - 2 * 1.645, 3.0, 3 + 2 * 1.645)
    np.testing.assert_allclose(found, expected, atol=0.1)


def test_one_row_per_number_up_to_a_limit():
    choices = {
        "group": {"w": jnp.arange(12.0).reshape(2, 2, 3), "flip": jnp.array([True, False])},
        "empty": jnp.zeros((2, 0)),
    }
    table = summarize(choices, max_entries=4)
    names = [row.address for row in table.rows]
    assert names == ["group/flip", *(f"group/w[{i}]" for i in ("0, 0", "0, 1", "0, 2", "1, 0"))]
    assert table.rows[0].mean == 0.5
    assert table.rows[2].mean == (1 + 7) / 2
    assert table.left_out == {"group/w": 2}
    assert "group/w: 2 more" in str(table)
    assert "group/w[0, 2]" in str(table) and "2 draws" in str(table)


def test_one_draw_and_a_choice_without_an_address():
    (row,) = summarize(jnp.array([2.0]), max_entries=4).rows
    assert (row.address, row.mean, row.sd) == ("value", 2.0, 0.0)
    assert summarize({}, max_entries=4).rows == ()
