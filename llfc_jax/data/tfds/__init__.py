"""TensorFlow Datasets: preparing a set once, and reading it without TensorFlow."""
