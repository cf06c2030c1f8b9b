"""The simulator: closed forms, an oracle in plain Python, scenario files, the command."""
