"""Linear assignment: solvers, and the assignment of nested groups."""
