"""Reads a table and uses a module that lie beside it."""

import csv

from stats import mean

with open("data.csv", newline="") as file:
    rows = list(csv.DictReader(file))
for column in ("height", "weight"):
    print(f"{column:8} {mean(float(row[column]) for row in rows):6.1f}")
