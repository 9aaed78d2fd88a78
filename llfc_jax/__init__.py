"""Mode connectivity, layer by layer: train pairs, align them, measure LMC and LLFC.

The rooms, each importable alone: `llfc_jax.graph` (a network as its trace), `llfc_jax.measures`,
`llfc_jax.matching`, `llfc_jax.networks`, `llfc_jax.data`, `llfc_jax.training`, `llfc_jax.report`.
"""

__version__ = "0.1.0"
