"""Fine-tuning: one network learns task after task, and nothing is done against forgetting."""

from dataclasses import dataclass

from hypercl.methods.base import Method, OwnWeights, OwnWeightsEntry, Setting


@dataclass(frozen=True)
class Finetune(OwnWeightsEntry):
    def build(self, setting: Setting) -> Method:
        return OwnWeights(setting, mnet_init=self.mnet_init)


ENTRY = Finetune
