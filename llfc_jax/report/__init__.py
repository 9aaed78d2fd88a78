"""Results as pictures, terminal tables and one self-contained page.

Everything here works on plain rows (lists of dictionaries) and on the descriptions
`llfc_jax.results.Chart` and `Section`; how a number was made is unknown here.

`figures.draw(chart, rows)` and `figures.save`; `table.render(rows, columns)`;
`page.write_page(path, ...)`.
"""
