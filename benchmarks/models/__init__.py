"""One file per model, with `ours()` and `by_hand()`."""
