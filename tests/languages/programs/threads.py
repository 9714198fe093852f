"""Threads: locks, conditions, queues, a pool, timers, and what is local to each."""

import queue
import signal
import threading
from concurrent.futures import ThreadPoolExecutor


def squares() -> list[int]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda n: n * n, range(5)))


def passed_on() -> int:
    first: queue.Queue[int] = queue.Queue()
    last: queue.Queue[int] = queue.Queue()
    worker = threading.Thread(target=lambda: last.put(first.get() * 2))
    worker.start()
    first.put(21)
    worker.join()
    return last.get(timeout=5)


def barrier() -> int:
    local, seen, gate = threading.local(), [], threading.Barrier(8)

    def meet(n: int) -> None:
        local.n = n
        gate.wait(5)
        seen.append(local.n)

    workers = [threading.Thread(target=meet, args=(n,)) for n in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(seen)


def interrupted() -> str:
    """A signal to a thread of one's own, and a wait that times out."""
    heard: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    timed_out = not threading.Event().wait(0.01)
    return f"{len(heard)} {timed_out}"


print(squares(), passed_on(), barrier(), interrupted())
