"""Graph to frozen program: lowering, passes, placement, design rules. Knows no backend."""
