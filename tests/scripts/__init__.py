"""Training scripts that share no line with this project: strangers for golf bench --against."""
