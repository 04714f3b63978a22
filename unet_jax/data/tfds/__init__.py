"""TensorFlow Datasets sets as cases, read without TensorFlow."""
