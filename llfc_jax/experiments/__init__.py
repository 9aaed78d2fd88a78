"""Experiments: from a config, or two modes of the user's, to tables, verdicts and a page."""
