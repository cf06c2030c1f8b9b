"""The least that a call from Python can cost, measured in the same process as what is compared with it."""
