"""Processes: every way in which multiprocessing starts them, pools, shared memory, pipes, locks."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from multiprocessing.connection import Connection


def square(n: int) -> int:
    return n * n


def count(number, lock) -> None:  # type: ignore[no-untyped-def]
    for _ in range(100):
        with lock:
            number.value += 1


def answer(pipe: Connection, name: str) -> None:
    block = shared_memory.SharedMemory(name)
    pipe.send(bytes(block.buf[:4]))
    block.close()
    pipe.close()


def main() -> None:
    print(sys.version_info[:2])
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            squares = pool.map(square, range(4))
        number, lock = context.Value("i", 0), context.Lock()
        counting = [context.Process(target=count, args=(number, lock)) for _ in range(2)]
        for process in counting:
            process.start()
        for process in counting:
            process.join()
        block = shared_memory.SharedMemory(create=True, size=4096)
        block.buf[:4] = b"1234"
        ours, theirs = context.Pipe()
        reader = context.Process(target=answer, args=(theirs, block.name))
        reader.start()
        told = ours.recv()
        reader.join()
        block.close()
        block.unlink()
        codes = [process.exitcode for process in (*counting, reader)]
        print(method, squares, number.value, told, codes)
    with ProcessPoolExecutor(2) as executor:
        print(list(executor.map(square, range(3))), os.path.basename(sys.executable)[:6])
    with multiprocessing.Manager() as manager:
        shared = manager.dict(a=1)
        shared["b"] = 2
        print(dict(shared))


if __name__ == "__main__":
    main()
