from shared.artifacts.store import ArtifactStore, TrainingStore, Tree
from shared.artifacts.uris import Pinned, pin

__all__ = ["ArtifactStore", "Pinned", "TrainingStore", "Tree", "pin"]
