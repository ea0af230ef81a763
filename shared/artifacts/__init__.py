from shared.artifacts.store import ArtifactStore, Tree

__all__ = ["ArtifactStore", "Tree"]
