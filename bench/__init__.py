"""Measurements: each prints what it compares with, the ratio and its spread. `make bench` runs them all."""
