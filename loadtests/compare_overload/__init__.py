"""`make compare-overload`: goodput and fairness under overload, beside peers; see docs/benchmarks.md.

`schedule` says which calls come when, the same for every proxy; `callers` makes them, in a process of its
own; `contenders` holds the configurations; `cell` starts and measures one proxy at one load; `figures` says
what a cell came to, `table` and `chart` what all did; `__main__` goes through the rounds.
"""
