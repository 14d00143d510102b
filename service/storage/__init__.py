"""What outlives the process: the jobs' database and their files."""
