"""`make compare`: our proxy beside Envoy, nginx and HAProxy, case by case; see docs/benchmarks.md.

`bench` starts what is measured; `calls`, `streams` and `latency` measure one turn of one proxy; `table` and
`chart` say what it came to; `__main__` goes through the rounds.
"""
