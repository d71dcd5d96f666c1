"""Linear maps fitted to vectors, and the file that keeps them."""
