"""Backward passes that run layers again instead of storing their intermediate results.

checkpoint      the memory modes "store" and "recompute" of a layer
reversible      a segment of a chain in mode "recompute" or "invert", as one autograd node
segment         the layers of such a node and the tensors that they read
trace           one layer at one point, for its backward pass
replay          precision, random numbers and buffers of a repeated call
fingerprints    how accurately states are recovered from the output
"""
