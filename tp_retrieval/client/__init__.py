"""A server's indexes from another process: the methods of `Index` over HTTP, without torch or FAISS."""
