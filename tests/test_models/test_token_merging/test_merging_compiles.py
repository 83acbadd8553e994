"""Methods of fixed lengths go into one compiled graph."""

import pytest
import torch

from eomt_mm.models.token_merging.bipartite import best_partners


@pytest.mark.parametrize('dtype', (torch.float32, torch.bfloat16))
def test_matching_breaks_no_graph(dtype):
    features = torch.randn(2, 9, 8, dtype=dtype)
    torch._dynamo.reset()
    compiled = torch.compile(best_partners, backend='eager', fullgraph=True)
    with torch.autocast('cpu', torch.bfloat16):
        for found, expected in zip(
            compiled(features), best_partners(features), strict=True
        ):
            assert torch.equal(found, expected)
