"""What lbcore's native core must do, written plainly in Python: one concept a file, exact, slow, without cleverness.

Each file names the Envoy source whose behaviour it states. Where lbcore departs from Envoy on purpose, the docstring
says so with the word "departure". The tests beside these files hold them to numbers that Envoy's own tests publish;
`tests/core/` holds the native core to these files.
"""
