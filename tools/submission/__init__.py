"""What `golf submit` writes: runs, files, README, branch."""
