"""KServe's Open Inference Protocol: its generated stubs, its tensors, and who waits for an answer."""
