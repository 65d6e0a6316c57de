"""Secure sums: the double-masking protocol of `docs/protocol.md` as machines without IO, clock or randomness of their own."""
