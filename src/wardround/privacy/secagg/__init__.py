"""Secure sums: the double-masking protocol of `docs/protocol.md`, as machines that do no IO and keep no clock."""
