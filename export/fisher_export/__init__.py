"""From a checkpoint to a verified bundle: ONNX graph, quantisation, parity figures."""
