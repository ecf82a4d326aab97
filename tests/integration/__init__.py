import pytest

# so that a failing assert in the shared checks shows its values, as one in a test module does
pytest.register_assert_rewrite(f"{__name__}.contract")
