"""A vLLM look-alike: its HTTP surface, metrics and failures, over a seeded model of continuous batching.

`cli` runs it as a process of its own (`vllm-exporter simulate`). `scheduler`, `kv_cache` and `timing` are the engine:
pure modules that time is passed into. Nothing here computes a model; text is made up, its amounts and times are not.
"""
