"""Results as charts, tables and one self-contained page.

Everything here works on plain rows (lists of dictionaries) and on the descriptions
`llfc_jax.results.Chart` and `Section`, and without JAX; how a number was made is unknown here.

`figures.draw(chart, rows)` is an Altair chart, `figures.save` a file of it; `table.show(rows,
columns)` prints; `page.write_page(path, ...)` writes the page of a run, `comparison` that of
several, and `stored.rebuild(directory)` makes a page again from what a run stored.
"""
