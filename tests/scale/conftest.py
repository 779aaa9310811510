from tests.contract.conftest import parents as parents

FAMILIES = ["nemotron_h", "zamba2", "llama", "mixtral"]
