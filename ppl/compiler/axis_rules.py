"""How JAX's primitives move axes: one rule per primitive.

`rule(eqn, operand)` says where each axis of that operand goes in the result (`None`: its entries
are combined, so its lanes mix). A primitive without a rule mixes everything, which is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ppl.compiler.influence import NOTHING, Along, AxisRule, Entry, Influence, Order, axis_rules
from ppl.lang.staged import Eqn

AxisMap = list[int | None]


def rule_for(*names: str) -> Callable[[AxisRule], AxisRule]:
    def register(rule: AxisRule) -> AxisRule:
        axis_rules.update(dict.fromkeys(names, rule))
        return rule

    return register


def _ndim(eqn: Eqn, operand: int) -> int:
    return len(eqn.ins[operand].aval.shape)


def _same(eqn: Eqn, operand: int) -> AxisMap:
    return list(range(_ndim(eqn, operand)))


ELEMENTWISE = (
    "abs acos acosh add and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp "
    "complex conj convert_element_type copy copy_p cos cosh digamma div eq erf erf_inv erfc exp "
    "exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow is_finite le lgamma "
    "log log1p log2 logistic lt max min mul ne neg nextafter not optimization_barrier or polygamma "
    "population_count pow random_gamma_grad real reduce_precision regularized_incomplete_beta rem "
    "round rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sign sin sinh "
    "sqrt square stop_gradient sub tan tanh xor zeta add_any bitcast_convert_type name "
    "sharding_constraint reduce_precision smooth lgamma clz mul_add real_part require"
).split()
for _name in ELEMENTWISE:
    axis_rules[_name] = _same


@rule_for("lane_by_lane")
def _lane_by_lane(eqn: Eqn, operand: int) -> AxisMap | Callable[[Influence], Influence]:
    if operand == 0:  # a function of the other operands, through equations that mix lanes
        return lambda influence: NOTHING
    lanes = eqn.params["axes"][operand - 1]
    return [*lanes, *(None,) * (_ndim(eqn, operand) - len(lanes))]


@rule_for("broadcast_in_dim")
def _broadcast(eqn: Eqn, operand: int) -> AxisMap:
    shape, where = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    own = eqn.ins[operand].aval.shape
    return [d if own[i] == shape[d] else None for i, d in enumerate(where)]


@rule_for("transpose")
def _transpose(eqn: Eqn, operand: int) -> AxisMap:
    permutation = eqn.params["permutation"]
    return [permutation.index(i) for i in range(len(permutation))]


@rule_for("reshape")
def _reshape(eqn: Eqn, operand: int) -> AxisMap:
    """An axis survives if it has the same size with as many entries before it."""
    return reshape_map(eqn.ins[0].aval.shape, eqn.outs[0].aval.shape)


def reshape_map(old: Sequence[int], new: Sequence[int]) -> AxisMap:
    at, before = {}, 1
    for j, n in enumerate(new):
        if n != 1:
            at[before, n] = j
        before *= n
    out: AxisMap = []
    before = 1
    for n in old:
        out.append(at.get((before, n)))
        before *= n
    return out


@rule_for("squeeze")
def _squeeze(eqn: Eqn, operand: int) -> AxisMap:
    return _without(_ndim(eqn, operand), eqn.params["dimensions"])


@rule_for("expand_dims")
def _expand_dims(eqn: Eqn, operand: int) -> AxisMap:
    new = set(eqn.params["dimensions"])
    return [i for i in range(len(eqn.outs[0].aval.shape)) if i not in new]


def _without(ndim: int, axes: Sequence[int]) -> AxisMap:
    kept = [i for i in range(ndim) if i not in axes]
    return [kept.index(i) if i in kept else None for i in range(ndim)]


@rule_for(
    "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or",
    "reduce_xor", "argmax", "argmin", "reduce",
)  # fmt: skip
def _reduce(eqn: Eqn, operand: int) -> AxisMap:
    axes = eqn.params["axes" if "axes" in eqn.params else "dimensions"]
    return _without(_ndim(eqn, operand), axes)


@rule_for("dot_general")
def _dot_general(eqn: Eqn, operand: int) -> AxisMap:
    contract, batch = (d[operand] for d in eqn.params["dimension_numbers"])
    free = [i for i in range(_ndim(eqn, operand)) if i not in contract and i not in batch]
    first = len(batch)
    if operand == 1:
        left_contract, left_batch = (d[0] for d in eqn.params["dimension_numbers"])
        first += _ndim(eqn, 0) - len(left_contract) - len(left_batch)
    out: AxisMap = [None] * _ndim(eqn, operand)
    for j, i in enumerate(batch):
        out[i] = j
    for j, i in enumerate(free):
        out[i] = first + j
    return out


@rule_for("concatenate", "rev", "sort", "approx_top_k")
def _along_dimension(eqn: Eqn, operand: int) -> AxisMap:
    dims = eqn.params.get("dimensions", (eqn.params.get("dimension"),))
    return [None if i in dims else i for i in range(_ndim(eqn, operand))]


@rule_for("split")
def _split(eqn: Eqn, operand: int) -> AxisMap:
    return [None if i == eqn.params["axis"] else i for i in range(_ndim(eqn, operand))]


@rule_for("stack")
def _stack(eqn: Eqn, operand: int) -> AxisMap:
    return [i + (i >= eqn.params["axis"]) for i in range(_ndim(eqn, operand))]


@rule_for("unstack")
def _unstack(eqn: Eqn, operand: int) -> AxisMap:
    return _without(_ndim(eqn, operand), (eqn.params["axis"],))


@rule_for("tile")
def _tile(eqn: Eqn, operand: int) -> AxisMap:
    return [i if n == 1 else None for i, n in enumerate(eqn.params["reps"])]


@rule_for("pad")
def _pad(eqn: Eqn, operand: int) -> AxisMap:
    if operand == 1:
        return []
    return [i if c == (0, 0, 0) else None for i, c in enumerate(eqn.params["padding_config"])]


@rule_for("slice")
def _slice(eqn: Eqn, operand: int) -> AxisMap:
    return _full_axes(eqn, operand)


@rule_for("dynamic_slice")
def _dynamic_slice(eqn: Eqn, operand: int) -> AxisMap:
    # Along a full axis the start is clamped to 0: entries stay where they are.
    return _full_axes(eqn, operand) if operand == 0 else [None] * _ndim(eqn, operand)


def _full_axes(eqn: Eqn, operand: int) -> AxisMap:
    own, out = eqn.ins[operand].aval.shape, eqn.outs[0].aval.shape
    strides = eqn.params.get("strides") or (1,) * len(own)
    return [i if n == out[i] and strides[i] == 1 else None for i, n in enumerate(own)]


@rule_for("dynamic_update_slice")
def _dynamic_update_slice(eqn: Eqn, operand: int) -> AxisMap:
    if operand > 1:
        return [None] * _ndim(eqn, operand)
    full, part = eqn.ins[0].aval.shape, eqn.ins[1].aval.shape
    return (
        [i if full[i] == part[i] else None for i in range(len(full))] if operand else _same(eqn, 0)
    )


@rule_for("gather")
def _gather(eqn: Eqn, operand: int) -> AxisMap:
    d, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    own = eqn.ins[operand].aval.shape
    batching = tuple(getattr(d, "operand_batching_dims", ()))
    index_batching = tuple(getattr(d, "start_indices_batching_dims", ()))
    out_ndim = len(eqn.outs[0].aval.shape)
    batch_out = [j for j in range(out_ndim) if j not in d.offset_dims]
    if operand == 1:
        # Result entry (.., b, ..) comes from the index row b.
        return [*batch_out[: len(own) - 1], None]
    out: AxisMap = [None] * len(own)
    window = [i for i in range(len(own)) if i not in d.collapsed_slice_dims and i not in batching]
    for i, j in zip(window, d.offset_dims, strict=True):
        if sizes[i] == own[i]:
            out[i] = j
    for i, row in zip(batching, index_batching, strict=True):
        out[i] = batch_out[row]
    return out


@rule_for("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(eqn: Eqn, operand: int) -> Callable[[Influence], Influence]:
    axis = eqn.params["axis"]
    order = Order.SUFFIX if eqn.params["reverse"] else Order.PREFIX

    def run(e: Entry) -> Entry:
        if e is None or e.axis != axis:
            return e
        return Along(axis, order) if e.order in (Order.EXACT, order) else None

    return lambda influence: influence.map(run)


@rule_for("cholesky", "eigh", "svd", "qr", "lu", "triangular_solve", "tridiagonal_solve")
def _matrix(eqn: Eqn, operand: int) -> AxisMap:
    n = _ndim(eqn, operand)
    return [*range(n - 2), None, None]


@rule_for("top_k", "fft")
def _last_axes(eqn: Eqn, operand: int) -> AxisMap:
    n = _ndim(eqn, operand)
    lost = len(eqn.params["fft_lengths"]) if eqn.kind == "fft" else 1
    return [i if i < n - lost else None for i in range(n)]


@rule_for("conv_general_dilated")
def _conv(eqn: Eqn, operand: int) -> AxisMap:
    numbers = eqn.params["dimension_numbers"]
    out: AxisMap = [None] * _ndim(eqn, operand)
    simple = eqn.params["batch_group_count"] == 1
    if operand == 0 and simple:
        out[numbers.lhs_spec[0]] = numbers.out_spec[0]
    if operand == 1 and eqn.params["feature_group_count"] == 1 and simple:
        out[numbers.rhs_spec[0]] = numbers.out_spec[1]
    return out


@rule_for("log_density")
def _log_density(eqn: Eqn, operand: int) -> AxisMap:
    """Values and parameters broadcast from the right; event axes are combined."""
    p = eqn.params
    event = p["event_ndims"] if operand == 0 else p["family"].parameters[p["names"][operand - 1]]
    own, out = eqn.ins[operand].aval.shape, eqn.outs[0].aval.shape
    batch = len(own) - event
    shift = len(out) - batch
    return [
        *(i + shift if own[i] == out[i + shift] else None for i in range(batch)),
        *(None,) * event,
    ]
