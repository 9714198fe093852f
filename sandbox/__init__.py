"""How to run one command alone on Linux. Knows the kernel; knows no Django and no job.

Empty on purpose: the launcher imports this package and is forked for every sandbox,
so what is imported here is paid for at every launch.
"""
