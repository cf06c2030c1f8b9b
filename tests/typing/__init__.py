"""Programs that embed lbcore, as people write them: `make lint` holds them to mypy's strict mode, pytest runs them."""
