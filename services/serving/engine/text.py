"""Token ids to text as they arrive: whole characters, stop sequences cut, nothing taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_INCOMPLETE = "�"


class TextStream:
    """Feed ids, get text that is certain. `stopped` is set once a stop sequence has appeared."""

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(s for s in stop if s)
        self._ids: list[int] = []
        self._settled = 0
        """Ids before this one are only context for the decoder."""
        self._decoded = 0
        """Ids before this one are in the text already."""
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        """The text that became certain with `token`."""
        self._ids.append(token)
        known = self._decode(self._settled, self._decoded)
        text = self._decode(self._settled, len(self._ids))
        if text.endswith(_INCOMPLETE) and len(self._ids) - self._decoded < 8:
            return ""
        self._settled, self._decoded = self._decoded, len(self._ids)
        return self._release(self._held + text[len(known) :])

    def close(self) -> str:
        """Whatever was held back, now that nothing follows."""
        if self.stopped:
            return ""
        known = self._decode(self._settled, self._decoded)
        rest = self._decode(self._settled, len(self._ids))[len(known) :]
        text = self._release(self._held + rest)
        held, self._held = self._held, ""
        return text if self.stopped else text + held

    def _decode(self, start: int, end: int) -> str:
        if start == end:
            return ""
        text: str = self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)
        return text

    def _release(self, text: str) -> str:
        """Emit all of `text` but an ending that may grow into a stop sequence."""
        found = [at for s in self._stop if (at := text.find(s)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max(
            (n for s in self._stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0
        )
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]
