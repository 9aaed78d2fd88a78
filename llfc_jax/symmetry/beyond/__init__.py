"""Symmetries beyond permutations: matrices, scales and signs, read off a network's trace.

`derive` reads what the equations allow (`acting`, `unknowns`), `spec` holds what was found and
moves networks by an `element` of it, and `transport` does so for later checkpoints too.
"""
