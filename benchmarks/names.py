"""Names that measurements write and tables read."""

WITHOUT_NATIVE = "kappaflow, {}, without the native backend"
FLOOR = "conditioners alone (floor)"
SILU_FLOOR = "conditioners with SiLU alone (their floor)"
PRODUCTS = "matrix products alone"
QUANTITIES = ("train_step", "forward_backward", "log_prob", "sample")
ZUKO_SPLINES = "zuko, couplings"
OWN_IMAGES = "kappaflow glow, {}"
