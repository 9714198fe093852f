"""A progress bar, colours, and both streams."""

import sys
import time

for done in range(21):
    bar = "█" * done + "░" * (20 - done)
    print(f"\r\033[36m{bar}\033[0m {done * 5:3}%", end="", flush=True)
    time.sleep(0.05)
print()
for code, name in enumerate(("red", "green", "yellow", "blue", "magenta", "cyan"), 31):
    print(f"\033[{code}m{name}\033[0m and \033[1;{code}mbold {name}\033[0m")
print("This line goes to stderr.", file=sys.stderr)
