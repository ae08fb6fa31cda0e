from collections.abc import Mapping, Sequence
from typing import Any

import keras


class OptimizerGroup(keras.optimizers.Optimizer):
    """Several optimizers under one name, so that Keras hands around and saves the state of all.

    It updates nothing itself: a model's `train_batch` calls `backend.guarded_update` with each.

    Args:
        members: Dict from a name to an optimizer and the variables it updates.
    """

    def __init__(
        self,
        members: Mapping[str, tuple[keras.optimizers.Optimizer, Sequence[keras.Variable]]],
    ) -> None:
        super().__init__(learning_rate=1.0)
        self.members = {name: optimizer for name, (optimizer, _) in members.items()}
        self._parts = {name: list(variables) for name, (_, variables) in members.items()}

    def build(self, variables: Any) -> None:
        super().build(variables)
        for name, optimizer in self.members.items():
            if not optimizer.built:
                optimizer.build(self._parts[name])

    @property
    def variables(self) -> list[keras.Variable]:
        return [*super().variables, *(v for o in self.members.values() for v in o.variables)]
