"""``python -m nmtool.backends.lava_worker``."""

from nmtool.backends.lava_worker import main

if __name__ == "__main__":
    main()
