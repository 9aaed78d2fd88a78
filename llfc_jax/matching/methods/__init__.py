"""Matching methods, one file each."""
