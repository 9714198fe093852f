"""Draws a random walk as it goes, and leaves the drawing as a file."""

import random
import time

WIDTH, HEIGHT, STEPS = 640, 320, 400

position, walk = 0.0, []
for step in range(1, STEPS + 1):
    position += random.gauss(0, 1)
    walk.append(position)
    if step % 50 == 0:
        print(f"step {step:3}  at {position:+6.1f}")
        time.sleep(0.1)

low, high = min(walk), max(walk)
points = " ".join(
    f"{i * WIDTH / STEPS:.1f},{HEIGHT - 10 - (y - low) / (high - low) * (HEIGHT - 20):.1f}"
    for i, y in enumerate(walk)
)
with open("plot.svg", "w") as file:
    file.write(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
        f'<polyline points="{points}" fill="none" stroke="#0550ae" stroke-width="2"/></svg>'
    )
print(f"From {low:.1f} to {high:.1f}. The plot is under Files.")
