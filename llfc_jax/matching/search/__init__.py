"""Searches over permutations: coordinate ascent, and Frank-Wolfe over their mixtures."""
