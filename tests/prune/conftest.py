from tests.prune.made import raw as raw
