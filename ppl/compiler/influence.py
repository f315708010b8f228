"""Influence: which random choices each value depends on, and along which lanes.

A choice has *lanes*: independent draws along its batch axes and along the loops around it. A
value may depend on one lane per entry ("aligned": entry i on lane i), on all lanes up to its
own ("prefix"), or on everything ("mixed"). The gradient estimator charges a cost only to the
lanes that influence it, so sharper alignment means less variance; "mixed" is always sound.

Sources name the draws that a block can see:

* `Site`: a choice, in the block where it is made;
* `Stacked(loop, s)`: all steps of `s`, seen from outside of the loop (a new first lane);
* `Sliced(loop, s, lane)`: the lane of an outer `s` that the current step scans;
* `Past(loop, s)`: what `s` was in earlier steps, seen from inside of the loop; for an enumerated
  choice, the loop's state as the step finds it;
* `Final(loop, s)`: the enumerated state in which a loop ends;
* `WORLDS`: no draw, but the axis of alternative worlds (`worlds`), in each of which some choices
  take another value than the one drawn;
* `Classes(choices)`: no draw, but an axis for the joint values of enumerated choices that are told
  apart (`classes`); only tables of plain values have it.

Two relations are tracked. `score`: the draws that a value depends on, through anything at all
(also through another choice's parameters). `axes`: the enumerated choices over whose values a
value is tabulated; a child's table does not include its parents', since the probabilities do.
`WORLDS` is one of the axes of all values that differ between worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from ppl.lang.staged import Atom, Block, Eqn, Lit, Var, inlined

# ----------------------------------------------------------------------------------- sources


@dataclass(frozen=True)
class Site:
    """A random choice, in the block where it is made."""

    eqn: Eqn

    def __repr__(self) -> str:
        return self.eqn.params.get("address", "genjax")


@dataclass(frozen=True)
class Stacked:
    """All steps of `inner`, seen from outside of `loop`; the steps are its first lane."""

    loop: Eqn
    inner: Source

    def __repr__(self) -> str:
        return f"{self.inner}[all steps]"


@dataclass(frozen=True)
class Sliced:
    """The part of an outer source's `lane` that the current step of `loop` sees."""

    loop: Eqn
    inner: Source
    lane: int

    def __repr__(self) -> str:
        return f"{self.inner}[this step]"


@dataclass(frozen=True)
class Past:
    """What `inner` was in earlier steps of `loop`."""

    loop: Eqn
    inner: Source

    def __repr__(self) -> str:
        return f"{self.inner}[earlier steps]"


@dataclass(frozen=True)
class Final:
    """The enumerated state `inner` in which a loop ends, seen from outside of `loop`."""

    loop: Eqn
    inner: Source

    def __repr__(self) -> str:
        return f"{self.inner}[last step]"


@dataclass(frozen=True)
class Undrawn:
    """An axis of tables that is no draw, and has no lanes."""


@dataclass(frozen=True)
class Worlds(Undrawn):
    """The axis of alternative worlds; it has no probabilities."""

    def __repr__(self) -> str:
        return "worlds"


WORLDS = Worlds()


@dataclass(frozen=True)
class Classes(Undrawn):
    """Classes of joint values of some choices.

    Attributes:
        of: the choices.
        sizes: how many values each has.
        index: the class of each joint value, the last choice's value changing fastest; classes are
            numbered as they first appear.
    """

    of: tuple[Source, ...]
    sizes: tuple[int, ...]
    index: tuple[int, ...]

    def __repr__(self) -> str:
        return f"classes of {', '.join(map(repr, self.of))}"


Source = Site | Stacked | Sliced | Past | Final | Undrawn


def site_of(source: Source) -> Eqn:
    """The choice that a source is about."""
    assert not isinstance(source, Undrawn)
    return source.eqn if isinstance(source, Site) else site_of(source.inner)


# -------------------------------------------------------------------------------- alignments


class Order(Enum):
    """How entry i of an axis depends on the lanes along it."""

    EXACT = "lane i"
    PREFIX = "lanes up to i"
    SUFFIX = "lanes from i on"


@dataclass(frozen=True)
class Along:
    """A lane runs along axis `axis` of the value."""

    axis: int
    order: Order = Order.EXACT


Entry = Along | None
"""Where one lane runs; `None` is mixed."""

Alignment = tuple[Entry, ...]


def join_entries(a: Entry, b: Entry) -> Entry:
    if a == b:
        return a
    if a is None or b is None or a.axis != b.axis:
        return None
    orders = {a.order, b.order} - {Order.EXACT}
    return Along(a.axis, orders.pop()) if len(orders) == 1 else None


def _join_maps(
    a: Mapping[Source, Alignment], b: Mapping[Source, Alignment]
) -> dict[Source, Alignment]:
    out = dict(a)
    for source, alignment in b.items():
        seen = out.get(source)
        out[source] = alignment if seen is None else tuple(map(join_entries, seen, alignment))
    return out


@dataclass(frozen=True, eq=False)
class Influence:
    """What a value depends on."""

    score: Mapping[Source, Alignment]
    axes: Mapping[Source, Alignment]

    def __bool__(self) -> bool:
        return bool(self.score or self.axes)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Influence) and self.score == other.score and self.axes == other.axes
        )

    def join(self, other: Influence) -> Influence:
        if not other:
            return self
        if not self:
            return other
        return Influence(_join_maps(self.score, other.score), _join_maps(self.axes, other.axes))

    def map(self, entry: Callable[[Entry], Entry]) -> Influence:
        """The same draws with every lane's entry changed."""
        return Influence(
            {s: tuple(map(entry, a)) for s, a in self.score.items()},
            {s: tuple(map(entry, a)) for s, a in self.axes.items()},
        )

    def rename(
        self, change: Callable[[Source, Alignment], Iterable[tuple[Source, Alignment]]]
    ) -> Influence:
        """Replace every source by others."""
        score: dict[Source, Alignment] = {}
        axes: dict[Source, Alignment] = {}
        for old, new in ((self.score, score), (self.axes, axes)):
            for source, alignment in old.items():
                for s, a in change(source, alignment):
                    new.update(_join_maps({k: new[k] for k in (s,) if k in new}, {s: a}))
        return Influence(score, axes)

    def along(self, axis_map: Sequence[int | None]) -> Influence:
        """Move axis i to `axis_map[i]` (`None`: the axis is lost, its lane is mixed)."""

        def move(e: Entry) -> Entry:
            axis = None if e is None else axis_map[e.axis]
            return None if e is None or axis is None else Along(axis, e.order)

        return self.map(move)


NOTHING = Influence({}, {})


def mixed(influence: Influence) -> Influence:
    """The same draws, along no axis."""
    return influence.map(lambda e: None)


# ---------------------------------------------------------------------------------- analysis

AxisRule = Callable[[Eqn, int], "Sequence[int | None] | Callable[[Influence], Influence]"]
"""`rule(eqn, operand)`: where each axis of the operand goes in the result."""

axis_rules: dict[str, AxisRule] = {}
"""How primitives move axes, by name; one without a rule mixes all lanes."""


class Analysis:
    """Influence of every variable of a staged program.

    Args:
        kind_of: `"score"`, `"enum"`, `"worlds"` or anything else (no influence of its own) for a
            choice.
        lanes_of: the batch axes of a choice that are lanes (`()` for joint enumeration).
    """

    def __init__(self, block: Block, kind_of: Callable[[Eqn], str], lanes_of: Callable[[Eqn], int]):
        self.kind_of, self.lanes_of = kind_of, lanes_of
        self.env: dict[Var, Influence] = {}
        self.params_of: dict[Eqn, Influence] = {}
        """influence on the parameters of a choice, in lane coordinates of the choice"""
        self.guards: dict[Eqn, Influence] = {}
        """influence on whether a choice is made at all (the branches around it)"""
        self._guard = NOTHING
        self.states: dict[Eqn, list[Influence]] = {}
        """for each scan: the influence on its carries at the end of a step"""
        self.starts: dict[Eqn, dict[Source, Source]] = {}
        """for each scan: the outer enumerated choices that its states start from"""
        self.block(block)

    def of(self, atom: Atom) -> Influence:
        return NOTHING if isinstance(atom, Lit) else self.env.get(atom, NOTHING)

    def block(self, block: Block) -> None:
        for eqn in block.eqns:
            rule = _analysis_rules.get(eqn.kind, Analysis.plain)
            for var, influence in zip(eqn.outs, rule(self, eqn), strict=True):
                self.env[var] = influence

    def plain(self, eqn: Eqn) -> Sequence[Influence]:
        ins = [self.of(a) for a in eqn.ins]
        if not any(ins):
            return [NOTHING] * len(eqn.outs)
        rule = axis_rules.get(eqn.kind)
        out = NOTHING
        for i, influence in enumerate(ins):
            if not influence:
                continue
            moved = None if rule is None else rule(eqn, i)
            if moved is None:
                out = out.join(mixed(influence))
            elif callable(moved):
                out = out.join(moved(influence))
            else:
                out = out.join(influence.along(moved))
        return [out] * len(eqn.outs)

    def site(self, eqn: Eqn) -> Sequence[Influence]:
        params = NOTHING
        for i, atom in enumerate(eqn.ins):
            if influence := self.of(atom):
                params = params.join(influence.along(site_axis_map(eqn, i)))
        self.params_of[eqn] = params
        self.guards[eqn] = self._guard
        kind, lanes = self.kind_of(eqn), self.lanes_of(eqn)
        own: dict[Source, Alignment] = {Site(eqn): tuple(Along(i) for i in range(lanes))}
        if kind == "score":
            return [Influence(_join_maps(params.score, own), params.axes)]
        if kind == "worlds":
            return [Influence(_join_maps(params.score, own), {WORLDS: (), **params.axes})]
        if kind == "enum":
            score = params.score if lanes else mixed(params).score
            return [Influence(score, own)]
        return [params]

    def logp_axes(self, site: Eqn) -> dict[Source, Alignment]:
        """The enumerated choices over whose values a choice's log-probability is tabulated."""
        own = {WORLDS: ()} if self.kind_of(site) == "worlds" else {}
        return {**own, **self.guards[site].axes, **self.params_of[site].axes}

    def cond(self, eqn: Eqn) -> Sequence[Influence]:
        # Which branch runs is decided by the index: its draws influence every output's entries.
        index, outer = mixed(self.of(eqn.ins[0])), self._guard
        self._guard = outer.join(index)
        for inner in eqn.blocks:
            self.block(inner)
        self._guard = outer
        outs = []
        for i in range(len(eqn.outs)):
            out = index
            for inner in eqn.blocks:
                out = out.join(self.of(inner.outs[i]))
            outs.append(out)
        return outs

    def call(self, eqn: Eqn) -> Sequence[Influence]:
        """A function that runs as a whole (it holds nothing of ours): look inside."""
        ins = [self.of(a) for a in eqn.ins]
        if not any(ins):
            return [NOTHING] * len(eqn.outs)
        inner = inlined(eqn)
        self.env.update(zip(inner.ins, ins, strict=True))
        self.block(inner)
        return [self.of(a) for a in inner.outs]

    def checkpoint(self, eqn: Eqn) -> Sequence[Influence]:
        self.block(eqn.blocks[0])
        return [self.of(a) for a in eqn.blocks[0].outs]

    def scan(self, eqn: Eqn) -> Sequence[Influence]:
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        for var, atom in zip(body.ins[n:], eqn.ins[n:], strict=True):
            self.env[var] = _slice(eqn, self.of(atom))
        local = local_sources(eqn)
        init = [self.of(a) for a in eqn.ins[:n]]
        leaving = self._fixpoint(eqn, init, local)
        starts = _initial_states(eqn, init, leaving, local)
        if starts:
            # The state's first distribution is that of an outer choice. If the body sees that
            # choice too, the two are correlated and the choice must stay an axis of its own.
            self.starts[eqn] = starts
            trimmed = [
                Influence(i.score, {s: a for s, a in i.axes.items() if s not in starts.values()})
                for i in init
            ]
            leaving = self._fixpoint(eqn, trimmed, local)
            if self._reads(body, set(starts.values())):
                del self.starts[eqn]
                leaving = self._fixpoint(eqn, init, local)
        self.states[eqn] = leaving
        last = [_close(eqn, local, i, stacked=False) for i in leaving]
        ys = [_close(eqn, local, self.of(a), stacked=True) for a in body.outs[n:]]
        return [*last, *ys]

    def _fixpoint(
        self, eqn: Eqn, init: Sequence[Influence], local: Callable[[Source], bool]
    ) -> list[Influence]:
        """The influence on the carries at the end of a step, once it no longer grows."""
        body, n = eqn.blocks[0], eqn.params["num_carry"]
        entry = list(init)
        while True:
            self.env.update(zip(body.ins[:n], entry, strict=True))
            self.block(body)
            leaving = [self.of(a) for a in body.outs[:n]]
            after = [
                e.join(out.rename(lambda s, a: [(Past(eqn, s) if local(s) else s, a)]))
                for e, out in zip(entry, leaving, strict=True)
            ]
            if after == entry:
                return leaving
            entry = after

    def _reads(self, block: Block, sources: set[Source]) -> bool:
        return any(
            not sources.isdisjoint(self.of(a).axes) for e in block.eqns for a in (*e.ins, *e.outs)
        ) or any(self._reads(b, sources) for e in block.eqns for b in e.blocks)


def _initial_states(
    loop: Eqn,
    init: Sequence[Influence],
    leaving: Sequence[Influence],
    local: Callable[[Source], bool],
) -> dict[Source, Source]:
    """Which outer enumerated choice each state of the loop starts from, if each has one."""
    starts: dict[Source, Source] = {}
    for before, after in zip(init, leaving, strict=True):
        states = [s for s in after.axes if local(s)]
        outer = [s for s in before.axes if s not in after.axes and s is not WORLDS]
        if not states or not outer:
            continue
        if len(states) != len(outer):
            return {}
        for state, start in zip(states, outer, strict=True):
            if starts.setdefault(Past(loop, state), start) != start:
                return {}
    return starts if len(set(starts.values())) == len(starts) else {}


_analysis_rules: dict[str, Callable[[Analysis, Eqn], Sequence[Influence]]] = {
    "site": Analysis.site,
    "cond": Analysis.cond,
    "checkpoint": Analysis.checkpoint,
    "custom_jvp_call": Analysis.call,
    "custom_vjp_call": Analysis.call,
    "remat2": Analysis.call,
    "scan": Analysis.scan,
}


def site_axis_map(eqn: Eqn, operand: int) -> list[int | None]:
    """Where a parameter's axes run among the lanes of a choice (event axes are mixed)."""
    family, names, shape = (eqn.params[k] for k in ("family", "names", "shape"))
    rank = family.parameters[names[operand]]
    own = eqn.ins[operand].aval.shape
    batch = len(own) - rank
    shift = len(shape) - batch
    return [
        *(i + shift if own[i] == shape[i + shift] else None for i in range(batch)),
        *(None,) * rank,
    ]


def local_sources(loop: Eqn) -> Callable[[Source], bool]:
    """Whether a source is made anew by each step of `loop`."""
    inner_eqns: set[Eqn] = set()

    def collect(block: Block) -> None:
        for e in block.eqns:
            inner_eqns.add(e)
            for b in e.blocks:
                collect(b)

    collect(loop.blocks[0])

    def local(source: Source) -> bool:
        match source:
            case Site(eqn):
                return eqn in inner_eqns
            case Sliced(l, inner, _):
                return l is loop or (l in inner_eqns and local(inner))
            case Stacked(l, _):
                return l in inner_eqns
            case Past(l, inner) | Final(l, inner):
                return l in inner_eqns and local(inner)
            case Undrawn():
                return False
        raise AssertionError(source)

    return local


def _slice(loop: Eqn, influence: Influence) -> Influence:
    """What a step sees of a scanned array's influence."""
    in_order = Order.SUFFIX if loop.params["reverse"] else Order.PREFIX

    def shift(e: Entry) -> Entry:
        return None if e is None or e.axis == 0 else Along(e.axis - 1, e.order)

    def change(source: Source, alignment: Alignment):
        lane = next((i for i, e in enumerate(alignment) if e is not None and e.axis == 0), None)
        entry = None if lane is None else alignment[lane]
        if lane is None or entry is None or entry.order not in (Order.EXACT, in_order):
            return [(source, tuple(map(shift, alignment)))]
        rest = tuple(shift(e) for i, e in enumerate(alignment) if i != lane)
        now = Sliced(loop, source, lane)
        both = [(now, rest)]
        return both if entry.order is Order.EXACT else [*both, (Past(loop, now), rest)]

    return influence.rename(change)


def _close(
    loop: Eqn, local: Callable[[Source], bool], influence: Influence, stacked: bool
) -> Influence:
    """A step's influence seen from outside: of a stacked output, or of the last carry."""
    running = Order.SUFFIX if loop.params["reverse"] else Order.PREFIX

    def shift(e: Entry) -> Entry:
        return Along(e.axis + 1, e.order) if stacked and e is not None else e

    def score(source: Source, alignment: Alignment):
        rest = tuple(map(shift, alignment))
        past = isinstance(source, Past) and source.loop is loop
        inner = source.inner if isinstance(source, Past) and past else source
        if not (past or local(source)):
            return [(source, rest)]
        step = Along(0, running if past else Order.EXACT) if stacked else None
        if isinstance(inner, Sliced) and inner.loop is loop:
            return [(inner.inner, (*rest[: inner.lane], step, *rest[inner.lane :]))]
        return [(Stacked(loop, inner), (step, *rest))]

    def axes(source: Source, alignment: Alignment):
        rest = tuple(map(shift, alignment))
        if not (local(source) or (isinstance(source, Past) and source.loop is loop)):
            return [(source, rest)]
        if stacked:
            return [(Stacked(loop, source), (Along(0), *rest))]
        return [(Final(loop, source), rest)]

    return Influence(
        Influence(influence.score, {}).rename(score).score,
        Influence({}, influence.axes).rename(axes).axes,
    )


def stack_axis(
    loop: Eqn, local: Callable[[Source], bool], axis: Source, alignment: Alignment
) -> tuple[Source, Alignment]:
    """An enumerated axis of a step's value, and of all steps' values stacked.

    `alignment` says where the axis' lanes run among those of another source; likewise the result.
    """
    rest = tuple(None if e is None else Along(e.axis + 1, e.order) for e in alignment)
    if local(axis) or (isinstance(axis, Past) and axis.loop is loop):
        return Stacked(loop, axis), (Along(0), *rest)
    return axis, rest


def slice_axis(
    loop: Eqn, lane: int, axis: Source, alignment: Alignment
) -> tuple[Source, Alignment]:
    """An enumerated axis of a source's table, and of one entry of it along `lane`."""
    at = next((i for i, e in enumerate(alignment) if e is not None and e.axis == lane), None)
    rest = tuple(
        None if e is None else Along(e.axis - (e.axis > lane), e.order)
        for i, e in enumerate(alignment)
        if i != at
    )
    return (axis if at is None else Sliced(loop, axis, at)), rest


def covered(influence: Mapping[Source, Alignment]) -> dict[Source, Alignment]:
    """Merge a slice of a source into the source itself where a value depends on both.

    Charging both would count the current lane twice.
    """
    out = dict(influence)
    for source in list(out):
        inner = source.inner if isinstance(source, Past) else source
        if isinstance(inner, Sliced) and inner.inner in out:
            rest = out.pop(source)
            whole = (*rest[: inner.lane], None, *rest[inner.lane :])
            out[inner.inner] = tuple(map(join_entries, out[inner.inner], whole))
    return out


def source_lanes(source: Source, sizes: Callable[[Eqn], tuple[int, ...]]) -> tuple[int, ...]:
    """Sizes of a source's lanes."""
    match source:
        case Site(eqn):
            return sizes(eqn)
        case Stacked(loop, inner):
            return (loop.params["length"], *source_lanes(inner, sizes))
        case Past(_, inner) | Final(_, inner):
            return source_lanes(inner, sizes)
        case Sliced(_, inner, lane):
            outer = source_lanes(inner, sizes)
            return (*outer[:lane], *outer[lane + 1 :])
        case Undrawn():
            return ()
    raise AssertionError(source)
