"""`make replicas`: several replicas with one set of limits in a real Redis; is it kept, and at what cost?

Every part runs in a process of its own: redis-server, the upstream (`origin.py`), the replicas, the callers
(`callers.py`). What arrived at the upstream and when is its own ledger's word. Where it matters to the call,
replicas are started through `witness.py`, which notes the instant of each of their grants.

`make compare-replicas` (`beside.py`): the same limit and load with LiteLLM's proxy.
"""
