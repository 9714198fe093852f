def mean(numbers):
    found = list(numbers)
    return sum(found) / len(found)
