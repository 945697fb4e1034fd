"""What `golf bench` measures: blocks of steps in turn, kernels, scoring, solvers, cold starts."""
