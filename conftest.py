"""The root conftest: the tests run pytest in pytest."""

pytest_plugins = ["pytester"]
