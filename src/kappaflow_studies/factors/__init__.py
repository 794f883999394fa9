"""The page of `kappaflow factor`: a factorization, and the same map with more couplings."""
