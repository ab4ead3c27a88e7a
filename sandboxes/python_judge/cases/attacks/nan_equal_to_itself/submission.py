def f(n: int) -> list[float]:
    return [float("nan")]
