import time


def render(key: str) -> None:
    """Work until it is told to stop. What needs Django's models calls django.setup() first."""
    print(f"at work on {key}", flush=True)
    time.sleep(1000)
