"""The registry in etcd: any number of interchangeable servers, none of which holds anything that the others lack.

`records` says what is written, `view` what is read, `leases` how leases are kept, `writing` how a change is made only
if nothing newer was; `board` and `loads` have what servers tell each other of checks and load, `memory` what is known
after a restart; `registry` joins them.

Registrations are not under etcd's leases: only a lease's own key is. When that key expires, the servers judge what to
do with the registrations (`lbcore.registry.preservation`); so even an outage of every server at once loses none.
"""
