"""Layer-wise compression without training: one Gram for each input, one file for each method, every linear told of."""
