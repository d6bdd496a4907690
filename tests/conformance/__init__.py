"""What every transport does, as claims that run on each of them."""
