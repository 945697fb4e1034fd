"""The parts of `golf compare`."""
