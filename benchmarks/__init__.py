"""Each measurement against its peer or its limit, in the same run: `python -m benchmarks [--scale S] [NAME...]`."""
