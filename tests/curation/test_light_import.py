import importlib
import subprocess
import sys
import threading

import pytest

from services.curation.adapters.light_import import hidden


def test_a_hidden_package_is_absent_for_this_thread_only():
    sys.modules.pop("colorsys", None)
    seen = []
    with hidden("colorsys"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("colorsys")
        other = threading.Thread(target=lambda: seen.append(importlib.import_module("colorsys")))
        other.start()
        other.join()
    assert seen
    assert importlib.import_module("colorsys") is seen[0]


def test_the_detector_loads_no_model_library():
    code = (
        "import sys\n"
        "from services.curation.adapters.pii import PiiDetector\n"
        "assert not {'presidio_analyzer', 'spacy'} & set(sys.modules)\n"
        "[[span]] = PiiDetector().detect(['mail a@b.com'])\n"
        "assert span.kind == 'EMAIL'\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
