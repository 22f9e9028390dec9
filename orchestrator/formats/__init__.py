"""What sensors send, one file a format; `normalise` tells them apart and makes alerts of them."""
