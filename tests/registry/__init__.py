"""The registry: its rules, its disk, its readers."""
