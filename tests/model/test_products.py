from compressor.checkpoint.products import Products
from compressor.measure.latency import timed
from compressor.model.products import open_products


def test_products_have_the_shapes_of_the_matrices_and_of_attention(monkeypatch):
    import torch

    seen, multiply = [], torch.matmul

    def matmul(a, b):
        seen.append((a.shape, b.shape))
        return multiply(a, b)

    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: seen.append((x.shape, w.shape)))
    monkeypatch.setattr(torch, "matmul", matmul)
    products = Products(((8, 4), (4, 8)), ((2, 5),))
    timed(open_products(products, torch.get_num_threads(), "cpu")(2, 3))(1)
    assert seen == [
        ((6, 4), (8, 4)),
        ((6, 8), (4, 8)),
        ((2, 2, 3, 5), (2, 2, 5, 3)),
        ((2, 2, 3, 3), (2, 2, 3, 5)),
    ]
