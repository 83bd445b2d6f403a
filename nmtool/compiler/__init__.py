"""Graph to frozen program: lowering, passes, placement, design rules. Knows no backend."""

from nmtool.compiler.options import LOSSY, CompileOptions

__all__ = ["LOSSY", "CompileOptions"]
