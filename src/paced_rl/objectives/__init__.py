"""Every formula of the losses, as pure functions of PyTorch tensors, and the one module with weights: the log-Z head.

Notation of the shapes: B completions, T completion tokens (padded), V tokens of vocabulary, E numbers of an embedding.
A `completion_mask` is True on the tokens that were sampled, the end-of-sequence token included.
"""
