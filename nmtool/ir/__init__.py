"""The network as a graph: NIR plus what NIR cannot say. Knows no target."""
