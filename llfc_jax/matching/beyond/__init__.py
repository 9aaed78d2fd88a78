"""Matching over a network's whole symmetry: matrices and scales beside permutations.

`sets` names the parts of the symmetry that a method may use, `balance` brings a network to the
form in which orthogonal matrices are enough, `families` solves one group, `weights` and `features`
find an element in closed form, and `learning` goes on from there by gradients.
"""
