"""What `golf audit` looks at: a scorer, the bytes of data, logs."""
