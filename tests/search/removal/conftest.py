from tests.contract.conftest import parents as parents
