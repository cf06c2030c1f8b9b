"""What lbcore's policies reach in simulated fleets, against goals: `make simulate`."""
