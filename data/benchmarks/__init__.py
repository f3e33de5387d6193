"""Benchmark tasks of lm-evaluation-harness with their texts (tools/benchmark_tasks.py made them).

A YAML file a task; `metadata.chance` says what guessing scores.
"""
