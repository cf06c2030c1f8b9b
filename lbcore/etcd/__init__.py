"""etcd as lbcore needs it: an address, a connection that moves to the next member, a watch that never ends.

The messages and stubs are aetcd's. Its client is not used: its watch ends when etcd restarts.
"""
