from shared.artifacts.store import ArtifactStore, TrainingStore, Tree
from shared.artifacts.uris import Pinned, evaluation_sets, pin

__all__ = ["ArtifactStore", "Pinned", "TrainingStore", "Tree", "evaluation_sets", "pin"]
