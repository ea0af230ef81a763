import pytest

from services.serving.keys import Keys
from shared.errors import Misconfigured


@pytest.mark.req("V5")
def test_keys_are_made_once_private_and_kept(tmp_path):
    path = tmp_path / "keys" / "api.json"
    first = Keys.load_or_create(path, tenants=["acme"])
    key = first.key_of("acme", "evaluate")
    assert path.stat().st_mode & 0o777 == 0o600
    again = Keys.load_or_create(path, tenants=["acme", "globex"])
    assert again.caller(key).tenant == "acme"
    assert again.key_of("globex", "serve")
    assert again.caller("sk-guess") is None


def test_a_key_file_others_can_read_is_refused(tmp_path):
    path = tmp_path / "api.json"
    path.write_text("{}")
    path.chmod(0o644)
    with pytest.raises(Misconfigured, match="read by others"):
        Keys.load_or_create(path)
