"""The commands of `sandrun`, a file for each or for a few that belong together: `main(arguments)`
gives the exit code, `parser()` is what its --help says. Nothing is imported that a command does not
need: __main__ imports the one that was named.
"""
