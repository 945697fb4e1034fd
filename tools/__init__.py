"""The golf command: one file a verb."""
