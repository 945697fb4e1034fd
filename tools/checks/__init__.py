"""What `golf check` looks at in a records folder, a file a subject."""
