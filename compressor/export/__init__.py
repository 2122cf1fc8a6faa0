"""ONNX graphs: export, fusion, int8, parity."""
