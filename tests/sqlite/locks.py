"""Whether locks are free."""

from concurrent.futures import ThreadPoolExecutor


def is_free(lock):
    """Return whether another thread can acquire a lock at once."""
    with ThreadPoolExecutor(1) as another:
        acquired = another.submit(lock.acquire, blocking=False).result()
        if acquired:
            another.submit(lock.release).result()
    return acquired
