"""What may be plugged into denoising steps: the contract, and one module for each method."""
