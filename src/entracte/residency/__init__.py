"""Where weights live. Knows nothing of LTX: it works on modules, tensors and names."""
