import time


def count_letters(text: str) -> int:
    print("counting", flush=True)
    return len(text.replace(" ", ""))


def wait_for_ever() -> None:
    print("waiting", flush=True)
    time.sleep(1000)
