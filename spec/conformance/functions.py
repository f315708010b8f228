"""For `extern.ppl`."""


def half(x):
    return x / 2
