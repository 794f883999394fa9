"""Names that measurements write and tables read."""

FLOOR = "conditioners alone (floor)"
PRODUCTS = "matrix products alone"
QUANTITIES = ("train_step", "forward_backward", "log_prob", "sample")
