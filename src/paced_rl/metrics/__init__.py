"""The measures every report uses, as pure functions of NumPy arrays.

Notation of the shapes: P prompts (or groups). `num_correct` and `num_scored` count a prompt's completions with reward 1
and with any reward; a completion whose verifier failed is in neither.
"""
