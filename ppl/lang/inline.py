"""`inline`: run a program so that its choices stand among its caller's."""

from __future__ import annotations


class Inline(str):
    """The place of a program that runs inline; made by `inline`.

    A string, as GenJAX's addresses are; it never shows.
    """

    addresses: tuple[str, ...]


def inline(*addresses: str) -> Inline:
    """In place of an address: the program's choices become the caller's, under the names they have.

    So the plate of `plate(lane)(xs) @ inline("theta", "y")` makes the caller's choices `theta` and
    `y`, with an axis of lanes, where `@ "schools"` would make `schools/theta` and `schools/y`.

    Args:
        addresses: exactly the addresses of the program's choices.

    Raises (when the program runs):
        AddressError: the caller has one of the addresses already.
    """
    place = Inline(f"inline({', '.join(addresses)})")
    place.addresses = addresses
    return place
