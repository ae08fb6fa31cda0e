from typing import Protocol


class Steps(Protocol):
    pass
