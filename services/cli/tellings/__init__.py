"""Facts in words, one module for each service whose facts fill one."""
