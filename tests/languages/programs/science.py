"""Numbers, tables and a picture."""

import numpy
import pandas

random = numpy.random.default_rng(7)
matrix = random.normal(size=(120, 80))
u, s, v = numpy.linalg.svd(matrix, full_matrices=False)
print("svd", bool(numpy.allclose(u * s @ v, matrix)), bool((s[:-1] >= s[1:]).all()))
print("fft", bool(numpy.allclose(numpy.fft.ifft(numpy.fft.fft(matrix[0])), matrix[0])))
numpy.save("matrix.npy", matrix)
print("mapped", bool((numpy.load("matrix.npy", mmap_mode="r") == matrix).all()))

table = pandas.DataFrame({"kind": list("abcab"), "n": [1, 2, 3, 4, 5]})
table.to_csv("table.csv", index=False)
sums = pandas.read_csv("table.csv").groupby("kind")["n"].sum()
print("groups", sums.to_dict())
days = pandas.date_range("2024-02-27", periods=4, tz="UTC")
print("days", [str(day.date()) for day in days][-2:], table.merge(table, on="kind").shape)

import matplotlib  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

figure, axes = pyplot.subplots(figsize=(4, 3), dpi=100)
axes.plot(s, label="singular values")
axes.set_title("$\\sigma_n$ of noise")
axes.legend()
figure.savefig("plot.png")
print("drawn")
