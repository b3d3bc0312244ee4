"""Benchmarks that run against any server: `ducto bench`, and what `benchmarks/` in the repository adds to.

- `harness`: contenders measured in turn, figures, targets; `setting`: what they run on; `run`: families in turn.
- `pricing`, `throughput`, `latency`, `accounts`, `memory`: the families.
- `bare`, `works`: what operations are, and their limit.
- `report`, `machine`: tables and JSON; `server`: whether it can be measured; `soak`, `drift`: a load for a long time.
"""
