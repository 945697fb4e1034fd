"""Bytes to the number."""
