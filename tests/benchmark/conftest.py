from toy_benchmark import commands  # noqa: F401
