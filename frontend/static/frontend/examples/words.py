"""Counts the words of its standard input: see Arguments and Standard input below."""

import argparse
import collections
import sys

parser = argparse.ArgumentParser()
parser.add_argument("--top", type=int, default=5)
options = parser.parse_args()

words = collections.Counter(sys.stdin.read().split())
for word, times in words.most_common(options.top):
    print(f"{times:4}  {word}")
