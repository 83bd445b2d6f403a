"""What executes a program and returns a RunResult."""
