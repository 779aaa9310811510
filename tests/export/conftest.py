from tests.cli.conftest import pool as pool
