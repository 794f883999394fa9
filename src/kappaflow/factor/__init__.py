"""Any invertible linear map as a few couplings of a fixed partition."""
