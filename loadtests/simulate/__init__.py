"""OB-1: the overload benchmark on a virtual clock (`make simulate`). Hours of overload in seconds of CPU.

The door is the product's own: `proxy.core.Gate` over `MemoryStore`, `BreakerMachine` and `Repeats`, with the
policy that `proxy.settings` makes of a real YAML file. Around it everything is a model, and deterministic:

    arrivals → callers → door (the real gate) → upstream → door → callers → ledger → metrics

* `clock`      virtual seconds and a heap of what happens next.
* `scenarios`  who asks for how much when, of which upstream, with which fault.
* `arrivals`   Poisson, three classes (critical 20 %, never above 0.6 of the capacity unless a scenario says
               so; normal and batch 5:3), ten tenants, chains of 3-7 calls; drawn in an order of their own, so
               that every variant of the proxy sees the same calls.
* `callers`    70 % retry like the SDKs (two retries, the time told to the millisecond, `x-should-retry`
               obeyed, else 0.5 s doubling with 25 % jitter), 15 % rude (five at once, deaf), 10 % full
               jitter, 5 % never. Half of the SDKs send their deadline. All leave at theirs: 10, 30 or 300 s.
* `upstreams`  U1 fixed: 32 slots and a FIFO. U2 knee: S(n) = S0 (1 + m/32 + m^2/768), m = max(0, n - 32).
               U3 LLM streams: 64 sequences, prefill in line, decoding slower the more there are, provider
               buckets with 429, 529 when its own queue is full. A stream's deadline is for its first token.
* `faults`     F1 outage (half refuse, half hang; what hangs is reset at its end), F2 brown-out (30 % of the
               slots, 10 % answer 500), F3 slow first token, F4 provider limits halved, F5 zombies (the
               upstream works on for callers who left), F8 a trigger of 10x for one second. F6 and F7 (Redis,
               replicas) belong to the distributed store and are not here.
* `door`       the gate as `proxy.admission` and `proxy.pipeline` use it, the one file that knows it;
               `no_door`: none at all, for comparison.
* `ledger`     what was true: the upstream's attempts, slot-seconds and peak, and how every call ended.
               `offered = good + late + refused + expired + cancelled + failed`, never a grant above the cap,
               nothing held at the end: else the run is void, and raises.
* `metrics`    the figures of one run; `goals` those of all runs beside the goals; `report` and `plots`.

A call's work is drawn with the call: its repeat costs the upstream the same. The network costs no time.
Goodput is counted where the upstream ends it, against what the bare upstream can do at its best.
"""
