"""Networks of other libraries to and from the graph."""
