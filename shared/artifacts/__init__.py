from shared.artifacts.store import ArtifactStore, Tree
from shared.artifacts.uris import Pinned, pin

__all__ = ["ArtifactStore", "Pinned", "Tree", "pin"]
