"""The experiments of the programmable variational inference paper (Becker et al., PLDI 2024)."""
