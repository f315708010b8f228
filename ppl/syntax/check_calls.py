"""Checking calls: functions, distributions, programs, and what objectives do with programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ppl.errors import suggestion
from ppl.syntax import ast
from ppl.syntax.distributions import FAMILIES, Family, Parameter
from ppl.syntax.functions import (
    AXIS,
    ELEMENTWISE,
    IN_OBJECTIVES,
    MAKERS,
    METHODS,
    OTHER,
    PAIRWISE,
    PROGRAMS,
    REDUCTIONS,
)
from ppl.syntax.scope import Scope, Signature
from ppl.syntax.types import (
    NONNEGATIVE,
    REAL,
    UNKNOWN,
    Dist,
    Expect,
    Interval,
    Num,
    Prog,
    Rec,
    Size,
    Tup,
    Type,
    broadcast,
    join,
    map_nums,
    put_sizes,
)


class Calls:
    """The checker's methods for calls."""

    error: Any
    expr: Any
    number: Any
    size: Any
    misfit: Any
    expect: Any
    refuse_noise: Any
    broadcast: Any
    signature: Callable[[str], Signature | None]
    unknown_function: Any
    programs: dict[str, ast.Program]
    signatures: dict[str, Signature]
    expectations: int

    def call(self, e: ast.Call, scope: Scope) -> Type:
        name = e.function
        if name in self.programs or name in self.signatures:
            return self._call_declared(e, scope)
        if name in FAMILIES:
            return self._distribution(e, FAMILIES[name], scope)
        if name in OTHER or name in IN_OBJECTIVES or name in PROGRAMS:
            if name in IN_OBJECTIVES and scope.kind != "objective":
                return self.error(
                    e, f"{name} stands outside of an objective", fix="objective bound(...) { ... }"
                )
            return getattr(self, f"_{name.lower()}_call")(e, scope)
        for table, method in (
            (ELEMENTWISE, self._elementwise),
            (PAIRWISE, self._pairwise),
            (REDUCTIONS, self._reduction),
            (AXIS, self._along_axis),
            (MAKERS, self._maker),
        ):
            if name in table:
                return method(e, scope)
        return self.unknown_function(e, [*self.programs, *self.signatures])

    def arguments(
        self, e: ast.Call, positional: tuple[int, int], named: tuple[str, ...] = ()
    ) -> bool:
        """Whether a call has the right number of arguments; if not, that is reported."""
        low, high = positional
        given = len(e.positional())
        for a in e.arguments:
            if a.name is not None and a.name not in named:
                self.error(a, f"{e.function} has no argument {a.name!r}", suggestion(a.name, named))
                return False
        if not low <= given <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            self.error(e, f"{e.function} takes {wanted} arguments, not {given}")
            return False
        return True

    # --------------------------------------------------------------------- declared in the text

    def _call_declared(self, e: ast.Call, scope: Scope) -> Type:
        signature = self.signature(e.function)
        if signature is None:
            return UNKNOWN
        sizes: dict[str, Size] = {}
        random = False
        for name, (node, found) in self._bind(e, signature, scope).items():
            wanted = signature.parameters.get(name)
            if wanted is None:  # a size by itself
                wanted = Num("int", NONNEGATIVE, size=Size.of(name))
            if reason := self.misfit(found, wanted, sizes, signature.sizes):
                self.error(node, f"the argument {name!r} of {e.function} does not fit", reason)
            random = random or (isinstance(found, Num) and found.random)
        return self._result(e, signature, sizes, scope, random)

    def _result(
        self, e: ast.Call, s: Signature, sizes: Mapping[str, Size], scope: Scope, random: bool
    ) -> Type:
        if s.kind in ("model", "guide"):
            return put_sizes(Prog(s.name, s.choices, s.result), sizes)
        if s.kind == "objective" and scope.kind != "objective":
            return self.error(e, f"the objective {s.name!r} is called in a {scope.kind}")
        result = put_sizes(s.result, sizes)
        if s.kind == "objective" and isinstance(result, Num):
            random = True
        return map_nums(result, lambda n: replace(n, random=n.random or random))

    def _bind(self, e: ast.Call, s: Signature, scope: Scope) -> dict[str, tuple[ast.Node, Type]]:
        """The arguments by the names of the parameters, those of unnamed sizes apart."""
        declared = self.programs.get(s.name)
        names = [p.name for p in declared.parameters] if declared else list(s.parameters)
        bound: dict[str, tuple[ast.Node, Type]] = {}
        for i, a in enumerate(e.arguments):
            name = a.name if a.name is not None else names[i] if i < len(names) else None
            found = self.expr(a.value, scope)
            if name is None or name not in names:
                what = f"{len(names)} arguments" if name is None else f"no argument {name!r}"
                self.error(
                    a, f"{e.function} takes {what}", suggestion(name or "", names) if name else None
                )
            elif name in bound:
                self.error(a, f"the argument {name!r} of {e.function} is given twice")
            else:
                bound[name] = (a.value, found)
        if missing := [n for n in names if n not in bound]:
            self.error(
                e, f"{e.function} needs {', '.join(missing)}", f"it takes {', '.join(names)}"
            )
        return bound

    # ----------------------------------------------------------------------------- distributions

    def _distribution(self, e: ast.Call, family: Family, scope: Scope) -> Type:
        given = self._parameters(e, family, scope)
        if given is None:
            return UNKNOWN
        batch = self._batch(e, family, given)
        if batch is None:
            return UNKNOWN
        value = family.draw
        if family.like is not None:
            like = given.get(family.like) or next(iter(given.values()))
            value = replace(value, shape=like.shape[len(like.shape) - family.event_rank :])
        if family.support is not None:
            value = replace(value, within=family.support(given))
        if e.function == "categorical":
            size = next(iter(given.values())).shape[-1].known
            value = replace(value, within=Interval(0.0, float("inf") if size is None else size - 1))
        if e.function == "delta":
            value = replace(value, noise=given["loc"].noise)
        return Dist(e.function, value.lifted(*batch), family.reparam, family.enum)

    def _parameters(self, e: ast.Call, family: Family, scope: Scope) -> dict[str, Num] | None:
        names = list(family.parameters)
        given: dict[str, Num] = {}
        complete = True
        for i, a in enumerate(e.arguments):
            name = a.name if a.name is not None else names[i] if i < len(names) else None
            found = self.number(a.value, scope)
            if name is None or name not in family.parameters or name in given:
                self.error(
                    a,
                    f"{e.function} takes {', '.join(names)}",
                    because=suggestion(a.name, names) if a.name else "this is one too many",
                )
                complete = False
            elif found is None:
                complete = False
            else:
                self._check_parameter(a.value, e.function, name, found, family.parameters[name])
                given[name] = found
        if not complete:
            return None
        needed = [
            n for n, p in family.parameters.items() if n not in family.either and not p.optional
        ]
        if missing := [n for n in needed if n not in given]:
            return self._missing(e, missing, names)
        if family.either and len(family.either & given.keys()) != 1:
            return self._missing(e, [f"exactly one of {', '.join(sorted(family.either))}"], names)
        return given

    def _missing(self, e: ast.Call, missing: list[str], names: list[str]) -> None:
        self.error(e, f"{e.function} needs {', '.join(missing)}", f"it takes {', '.join(names)}")

    def _check_parameter(
        self, node: ast.Expr, dist: str, name: str, found: Num, wanted: Parameter
    ) -> None:
        what = f"the parameter {name!r} of {dist}"
        if len(found.shape) < wanted.rank:
            kind = "vector" if wanted.rank == 1 else "matrix"
            self.error(node, f"{what} is a {kind}", f"found {found}")
            return
        event = found.shape[len(found.shape) - wanted.rank :]
        entry = replace(found, shape=event)
        self.expect(node, entry, Num("real", wanted.within, event, wanted.event), what)

    def _batch(self, e: ast.Call, family: Family, given: Mapping[str, Num]) -> Any:
        batch: Any = ()
        for name, t in given.items():
            own = t.shape[: len(t.shape) - family.parameters[name].rank]
            wider = broadcast(batch, own)
            if wider is None:
                shapes = ", ".join(f"{n}: {t}" for n, t in given.items())
                return self.error(e, "the parameters' shapes do not fit together", shapes) and None
            batch = wider
        return batch

    def _mixture_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (2, 2)):
            return UNKNOWN
        weights, component = (self.expr(a, scope) for a in e.positional())
        if not isinstance(component, Dist):
            if component is not UNKNOWN:
                self.error(e.arguments[1], f"{component} is not a distribution")
            return UNKNOWN
        call = e.positional()[1]
        if not (isinstance(call, ast.Call) and call.function in FAMILIES):
            return self.error(call, "a mixture needs a distribution with its parameters")
        rank = FAMILIES[call.function].event_rank
        shape = component.value.shape
        split = len(shape) - rank
        if split < 1:
            return self.error(
                call, "the components of a mixture run along an axis", f"found {component}"
            )
        self.expect(
            e.arguments[0], weights, Num(event="simplex", shape=(shape[split - 1],)), "the weights"
        )
        value = replace(component.value, shape=shape[: split - 1] + shape[split:])
        return Dist("mixture", value, component.reparam and not shape[1:], False)

    # --------------------------------------------------------------------------------- functions

    def _elementwise(self, e: ast.Call, scope: Scope) -> Type:
        found = self.number(e.arguments[0].value, scope) if self.arguments(e, (1, 1)) else None
        if found is None:
            return UNKNOWN
        rule = ELEMENTWISE[e.function]
        real = replace(found.plain(), within=rule.domain, kind="real")
        self.expect(e.arguments[0], found, real, f"the argument of {e.function}")
        if not rule.smooth:
            self.refuse_noise(e, found, e.function)
        noise = frozenset() if e.function == "assume_continuous" else found.noise
        kind = "int" if e.function in ("abs", "square") and found.kind == "int" else "real"
        if e.function in ("stop_gradient", "assume_continuous"):
            return replace(found, noise=noise, size=None)
        return found.plain(kind=kind, within=rule.image(found.within), noise=noise)

    def _pairwise(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (2, 2)):
            return UNKNOWN
        a, b = (self.number(x, scope) for x in e.positional())
        if a is None or b is None:
            return UNKNOWN
        within = PAIRWISE[e.function](a.within, b.within)
        return join(a, b).plain(shape=self.broadcast(e, a, b), within=within)

    def _reduction(self, e: ast.Call, scope: Scope) -> Type:
        found = self._first(e, scope, ("axis",))
        if found is None:
            return UNKNOWN
        if not found.shape:
            return self.error(e, f"{e.function} needs an array", f"found {found}")
        shape = ()
        if (axis := e.named().get("axis")) is not None:
            number = axis.value if isinstance(axis, ast.Number) else None
            if not isinstance(number, int) or number >= len(found.shape):
                return self.error(axis, "an axis is a number below the rank", f"found {found}")
            shape = found.shape[:number] + found.shape[number + 1 :]
        truth = e.function in ("any", "all")
        if truth and found.kind != "bool":
            self.error(e, f"{e.function} needs truth values", f"found {found}")
        same = found.kind if e.function in ("max", "min", "any", "all") else "real"
        kind = (
            "int"
            if same == "real" and found.kind != "real" and e.function in ("sum", "prod")
            else same
        )
        return found.plain(kind=kind, within=REDUCTIONS[e.function](found.within), shape=shape)

    def _first(self, e: ast.Call, scope: Scope, named: tuple[str, ...] = ()) -> Num | None:
        if not self.arguments(e, (1, 1), named):
            return None
        return self.number(e.positional()[0], scope)

    def _along_axis(self, e: ast.Call, scope: Scope) -> Type:
        found = self._first(e, scope)
        if found is None:
            return UNKNOWN
        if not found.shape:
            return self.error(e, f"{e.function} needs a vector", f"found {found}")
        event = AXIS[e.function]
        within = {"softmax": Interval(0.0, 1.0), "log_softmax": Interval(high=0.0)}
        return found.plain(
            kind=found.kind if e.function == "cumsum" else "real",
            within=within.get(e.function, NONNEGATIVE if found.within.low >= 0 else REAL),
            event=event,
        )

    def _maker(self, e: ast.Call, scope: Scope) -> Type:
        sizes = [self.size(a, scope) for a in e.positional()]
        if not self.arguments(e, (1, 1) if e.function in ("eye", "arange") else (1, 4)):
            return UNKNOWN
        if e.function == "eye":
            return Num("real", Interval(0.0, 1.0), (sizes[0],) * 2, event="identity")
        kind = "int" if e.function == "arange" else "real"
        return Num(kind, MAKERS[e.function], tuple(sizes))

    def _len_call(self, e: ast.Call, scope: Scope) -> Type:
        found = self._first(e, scope)
        if found is None:
            return UNKNOWN
        if not found.shape:
            return self.error(e, "len needs an array", f"found {found}")
        return Num("int", NONNEGATIVE, size=found.shape[0])

    def _fill_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (2, 5)):
            return UNKNOWN
        value, *sizes = e.positional()
        found = self.number(value, scope)
        shape = tuple(self.size(s, scope) for s in sizes)
        return UNKNOWN if found is None else found.plain().lifted(*shape)

    def _one_hot_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (2, 2)):
            return UNKNOWN
        index, size = self.number(e.positional()[0], scope), self.size(e.positional()[1], scope)
        if index is None:
            return UNKNOWN
        if index.kind != "int":
            self.error(e.arguments[0], "an index is a whole number", f"found {index}")
        return index.plain(
            kind="real", within=Interval(0.0, 1.0), shape=(*index.shape, size), event="simplex"
        )

    def _dot_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (2, 2)):
            return UNKNOWN
        a, b = (self.number(x, scope) for x in e.positional())
        if a is None or b is None:
            return UNKNOWN
        if len(a.shape) != 1 or a.shape != b.shape:
            return self.error(e, "dot needs two vectors of the same size", f"found {a} and {b}")
        within = NONNEGATIVE if (a.within * b.within).low >= 0 else REAL
        return join(a, b).plain(shape=(), within=within)

    def _square_matrix(self, e: ast.Call, scope: Scope, square: bool = True) -> Num | None:
        found = self._first(e, scope)
        if found is not None and (
            len(found.shape) != 2 or (square and found.shape[0] != found.shape[1])
        ):
            what = "square matrix" if square else "matrix"
            return self.error(e, f"{e.function} needs a {what}", f"found {found}") and None
        return found

    def _transpose_call(self, e: ast.Call, scope: Scope) -> Type:
        found = self._square_matrix(e, scope, square=False)
        return UNKNOWN if found is None else found.plain(shape=found.shape[::-1])

    def _diagonal_call(self, e: ast.Call, scope: Scope) -> Type:
        found = self._square_matrix(e, scope)
        return UNKNOWN if found is None else found.plain(shape=found.shape[:1])

    def _cholesky_call(self, e: ast.Call, scope: Scope) -> Type:
        found = self._square_matrix(e, scope)
        if found is None:
            return UNKNOWN
        wanted = Num(event="positive_definite", shape=found.shape)
        self.expect(e.arguments[0], found, wanted, "the argument of cholesky")
        return found.plain(within=REAL, event="lower_cholesky")

    def _real_call(self, e: ast.Call, scope: Scope) -> Type:
        found = self._first(e, scope)
        return UNKNOWN if found is None else replace(found, kind="real", size=None)

    def _concat_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (1, 8)):
            return UNKNOWN
        parts = [self.number(x, scope) for x in e.positional()]
        known = [p for p in parts if p is not None]
        if len(known) < len(parts):
            return UNKNOWN
        total, joined = Size(0), known[0]
        for node, part in zip(e.positional(), known, strict=True):
            if len(part.shape) != 1:
                return self.error(node, "concat joins vectors", f"found {part}")
            total, joined = total + part.shape[0], join(joined, part)
        return joined.plain(shape=(total,))

    # -------------------------------------------------------------------- programs in objectives

    def program(self, node: ast.Expr, scope: Scope) -> Prog | Dist | None:
        found = self.expr(node, scope)
        if isinstance(found, Prog | Dist):
            return found
        if found is not UNKNOWN:
            self.error(node, f"{found} is not a program", fix="a model or guide with arguments")
        return None

    def _sim_call(self, e: ast.Call, scope: Scope) -> Type:
        p = self.program(e.positional()[0], scope) if self.arguments(e, (1, 1)) else None
        if p is None:
            return Tup((UNKNOWN, Num(random=True)))
        choices = p.choices if isinstance(p, Prog) else p.value
        drawn = map_nums(choices, lambda n: replace(n, random=True))
        return Tup((drawn, Num(random=True)))

    def _density_call(self, e: ast.Call, scope: Scope) -> Type:
        if self.arguments(e, (2, 2)):
            node, choices = e.positional()
            p, given = self.program(node, scope), self.expr(choices, scope)
            if isinstance(p, Prog) and isinstance(given, Rec):
                self._check_cover(choices, p, given)
            elif isinstance(p, Prog) and given is not UNKNOWN:
                self.error(choices, "the choices of a program are a record", f"found {given}")
            elif isinstance(p, Dist):
                self.expect(choices, given, replace(p.value, within=REAL), "the value")
        return Num(random=True)

    def _check_cover(self, at: ast.Node, p: Prog, given: Rec, path: str = "") -> None:
        """Choices must be exactly those of the program, of its types and supports."""
        if missing := [n for n in p.choices.fields if n not in given.fields]:
            names = ", ".join(repr(path + n) for n in missing)
            self.error(
                at,
                f"values are missing for the choices {names} of {p.name}",
                because=suggestion(missing[0], given.fields),
                fix="add them to the guide, or observe them: z + {" + ", ".join(missing) + "}",
            )
        for name, wanted in p.choices.fields.items():
            if name not in given.fields:
                continue
            if isinstance(wanted, Rec) and isinstance(inner := given.fields[name], Rec):
                self._check_cover(at, Prog(p.name, wanted, None), inner, f"{path}{name}/")
            else:
                self._check_same(at, f"the choice {path + name!r}", given.fields[name], wanted)
        for name in given.fields:
            if name not in p.choices.fields:
                self.error(
                    at,
                    f"{p.name} has no choice {path + name!r}",
                    because=suggestion(name, p.choices.fields),
                    fix="correct the name, or integrate it out: marginal(..., keep = {...})",
                )

    def _check_same(self, at: ast.Node, what: str, found: Type, wanted: Type) -> None:
        if isinstance(found, Num) and isinstance(wanted, Num):
            if found.kind != wanted.kind and {found.kind, wanted.kind} - {"int", "bool"}:
                self.error(at, f"{what} is of another kind than the model's", f"{found}, {wanted}")
                return
            found = replace(found, kind=wanted.kind)
            if not found.random:  # data: whether they lie in the support is seen at the run
                found = replace(found, within=wanted.within, event=wanted.event)
        self.expect(at, found, wanted, what)

    def _e_call(self, e: ast.Call, scope: Scope) -> Type:
        if self.arguments(e, (1, 1)):
            found = self.expr(e.positional()[0], scope)
            if not isinstance(found, Expect):
                self.expect(e.arguments[0], found, Num(), "the argument of E")
            draws = found.draws if isinstance(found, Expect) else frozenset()
        else:
            draws = frozenset()
        self.expectations += 1
        return Expect(draws | {self.expectations})

    def _elbo_call(self, e: ast.Call, scope: Scope) -> Type:
        if self.arguments(e, (3, 3), ("particles",)):
            model, guide = (self.program(a, scope) for a in e.positional()[:2])
            observed = self.expr(e.positional()[2], scope)
            if isinstance(model, Prog) and isinstance(guide, Prog) and isinstance(observed, Rec):
                for name in sorted(guide.choices.fields.keys() & observed.fields.keys()):
                    self.error(e.arguments[1], f"the guide has the observed choice {name!r}")
                self._check_cover(e, model, Rec({**guide.choices.fields, **observed.fields}))
        return Num(random=True)

    def _iwelbo_call(self, e: ast.Call, scope: Scope) -> Type:
        particles = e.named().get("particles")
        if particles is None:
            self.error(e, "iwelbo needs a number of particles", fix="iwelbo(..., particles = 10)")
        else:
            self.size(particles, scope)
        return self._elbo_call(e, scope)

    # ------------------------------------------------------------------- marginal and normalize

    def _marginal_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (1, 1), ("keep", "by")):
            return UNKNOWN
        p = self.program(e.positional()[0], scope)
        keep = e.named().get("keep")
        self._check_method(e, scope)
        if not isinstance(keep, ast.Record):
            return self.error(keep or e, "marginal keeps some choices", fix="keep = {x, y}")
        if not isinstance(p, Prog):
            return UNKNOWN
        kept: dict[str, Type] = {}
        for f in keep.fields:
            if f.name not in p.choices.fields:
                known = suggestion(f.name or "", p.choices.fields)
                self.error(f, f"{p.name} has no choice {f.name!r}", known)
            else:
                kept[str(f.name)] = p.choices.fields[str(f.name)]
        return Prog(p.name, Rec(kept), Rec(kept))

    def _normalize_call(self, e: ast.Call, scope: Scope) -> Type:
        if not self.arguments(e, (1, 1), ("by",)):
            return UNKNOWN
        self._check_method(e, scope)
        return self.program(e.positional()[0], scope) or UNKNOWN

    def _check_method(self, e: ast.Call, scope: Scope) -> None:
        by = e.named().get("by")
        if not isinstance(by, ast.Call) or by.function not in METHODS:
            found = by.function if isinstance(by, ast.Call) else ""
            self.error(
                by or e,
                f"{e.function} needs a method of integration",
                because=suggestion(found, METHODS),
                fix="by = importance(proposal, particles = 10)",
            )
            return
        for i, a in enumerate(by.arguments):
            if i == 0 and a.name in (None, "proposal") and isinstance(a.value, ast.Name):
                if self.signature(a.value.name) is None:
                    known = suggestion(a.value.name, self.programs)
                    self.error(a, f"unknown program {a.value.name!r}", known)
            else:
                self.size(a.value, scope)
