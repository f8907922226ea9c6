"""What to decide. Standard library only; no await, clock, chance, logging or globals.

Time comes in as monotonic seconds (`now`), identity and chance come in as arguments, and what happened
goes out as the events of `events.py`. Read `gate.py` for the order of the checks.
"""
