"""Tokens: documents, tokenizers, shards, batches and the bytes they stand for."""
