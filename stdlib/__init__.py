"""The standard library: papers' models as programs in the language, one sub-package each."""
