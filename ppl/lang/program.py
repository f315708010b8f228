"""`gen`: generative programs, as in GenJAX, with full addresses and errors that help.

A `Program` *is* a GenJAX `Fn`: all of GenJAX's interface (`simulate`, `assess`, `generate`,
`update`, `regenerate`) and everything built on it works. What we add sits between GenJAX's
handler and the program: each choice runs inside its address's scope, GenJAX's own generative
functions are converted to ours (`as_program`), and addresses are checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import genjax
from genjax.core import Assess, Generate, Regenerate, Tr, Update, handler_stack

from ppl.errors import AddressError, suggestion
from ppl.lang.gfi import Combinators, name_of, no_empty, takes_value
from ppl.lang.inline import Inline
from ppl.lang.interop import as_program, converts
from ppl.lang.mask import Mask, masked_by
from ppl.lang.scope import address_of_choice, current_address, scope


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class ProgramTr(Tr):
    """A trace whose choices leave out what makes no choice (a `factor`)."""

    def get_choices(self) -> Any:
        return no_empty(super().get_choices())

    def get_fixed_choices(self) -> Any:
        return no_empty(super().get_fixed_choices())


@genjax.Pytree.dataclass(has_implicitly_inherited_fields=True)
class Program(Combinators, genjax.Fn):
    """A generative function made from a Python function by `gen`."""

    name: genjax.Const[str]
    density_mask: Mask | None = None

    @property
    def __name__(self) -> str:
        return self.name.value

    def simulate(self, *args: Any, **kwargs: Any) -> ProgramTr:
        return _trace(super().simulate(*args, **kwargs))

    def generate(self, x: Any, *args: Any, **kwargs: Any) -> tuple[ProgramTr, Any]:
        # GenJAX simulates where nothing is given, with weight 0; but factors weigh even then.
        tr, weight = super().generate({} if x is None else x, *args, **kwargs)
        return _trace(tr), weight

    def update(self, tr: Any, x_: Any, *args: Any, **kwargs: Any) -> tuple[ProgramTr, Any, Any]:
        new, weight, discard = super().update(tr, x_, *args, **kwargs)
        return _trace(new), weight, no_empty(discard)

    def regenerate(self, tr: Any, s: Any, *args: Any, **kwargs: Any) -> tuple[ProgramTr, Any, Any]:
        new, weight, discard = super().regenerate(tr, s, *args, **kwargs)
        return _trace(new), weight, no_empty(discard)

    def masked_by(self, mask: Mask) -> Program:
        return dataclasses.replace(self, density_mask=mask & self.density_mask)


def _trace(tr: Tr) -> ProgramTr:
    return ProgramTr(tr._gen_fn, tr._args, tr._choices, tr._retval, tr._score)


def gen(fn: Callable[..., Any]) -> Program:
    """Turn a function that makes addressed choices, `normal(0.0, 1.0) @ "x"`, into a program.

    The program's choices are a dictionary from address to value. Any GenJAX generative function
    may be called at an address: `other(args) @ "other"`.

    Raises (when run):
        AddressError: an address is used twice, or the given choices miss or exceed it.
    """
    name = getattr(fn, "__name__", "program")
    return Program(source=genjax.const(_Source(fn)), name=genjax.const(name))


@dataclasses.dataclass(frozen=True)
class _Source:
    """A program's function, run with our handler around GenJAX's.

    Equal for the same function: GenJAX compares the programs of two traces.
    """

    fn: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        checked = _Scoped(handler_stack[-1])
        handler_stack.append(checked)  # type: ignore[arg-type]
        try:
            result = self.fn(*args, **kwargs)
        finally:
            handler_stack.pop()
        checked.finish()
        return result


@converts(genjax.Fn)
def _from_genjax(fn: genjax.Fn) -> Program:
    return fn if isinstance(fn, Program) else gen(fn.source.value)


@dataclasses.dataclass
class _Everywhere:
    """Any address leads to the whole selection."""

    selection: Any

    def match(self, address: str) -> tuple[bool, Any]:
        return True, self.selection


class _Scoped:
    """Runs GenJAX's handler for each choice inside the choice's address, and checks addresses."""

    def __init__(self, handler: Any):
        self.handler = handler
        self.mask = handler.parent_fn.density_mask
        self.seen: set[str] = set()
        self.inlined = 0
        self.given = getattr(handler, "choice_map", {})
        if not isinstance(self.given, dict):
            raise AddressError(
                "the choices of a program are a dictionary from address to value",
                address=current_address(name_of(handler.parent_fn)),
                because=f"found a {type(self.given).__name__}",
            )
        if isinstance(handler, Update):
            handler.choice_map = {**handler.trace.get_choices(), **self.given}

    def __call__(self, address: str, gen_fn: Any, args: tuple, kwargs: dict | None = None) -> Any:
        if isinstance(address, Inline):
            return self._inline(address, masked_by(as_program(gen_fn), self.mask), args, kwargs)
        with scope(address):
            if address in self.seen:
                raise AddressError(
                    f"the address {address!r} is used twice in one program",
                    address=current_address(),
                    fix="give each choice its own name, or use plate/scan for repetitions",
                )
            self.seen.add(address)
            gen_fn = masked_by(as_program(gen_fn), self.mask)
            if isinstance(self.handler, Assess | Update):
                self._complete(address, gen_fn)
            return self.handler(address, gen_fn, args, kwargs or {})

    def _inline(self, inline: Inline, gen_fn: Any, args: tuple, kwargs: dict | None) -> Any:
        """Run a program whose choices stand among ours, and have no address in front."""
        for address in inline.addresses:
            if address in self.seen:
                raise AddressError(
                    f"the address {address!r} is used twice in one program",
                    address=address_of_choice(address),
                    fix="give each choice its own name",
                )
        self.seen.update(inline.addresses)
        self.inlined += 1
        place = Inline(f"inline {self.inlined}")  # two programs without choices stand apart
        if isinstance(self.handler, Generate | Assess | Update):
            given = self.handler.choice_map
            own = {a: given[a] for a in inline.addresses if a in given}
            self.handler.choice_map = {**given, place: own}
        if isinstance(self.handler, Regenerate):
            # GenJAX's handler asks the selection for the part below an address: here there is none.
            handler: Any = self.handler
            selection = handler.s
            handler.s = _Everywhere(selection)
            try:
                return handler(place, gen_fn, args, kwargs or {})
            finally:
                handler.s = selection
        return self.handler(place, gen_fn, args, kwargs or {})

    def _complete(self, address: str, gen_fn: Any) -> None:
        """Let a program without choices be left out of those given.

        A program that does have choices then says itself which one is missing.
        """
        if address in self.handler.choice_map:
            return
        if takes_value(gen_fn):
            raise AddressError(
                f"no value was given for the choice {address!r}",
                address=current_address(),
                because=suggestion(address, self.given),
                fix="add it to the choices, e.g. as an observation or a choice of the guide",
            )
        self.handler.choice_map = {**self.handler.choice_map, address: {}}

    def finish(self) -> None:
        if unknown := sorted(set(self.given) - self.seen):
            raise AddressError(
                f"the program has no choice {unknown[0]!r}",
                address=address_of_choice(unknown[0]),
                because=suggestion(unknown[0], self.seen),
                fix="remove the value, or correct its address",
            )
