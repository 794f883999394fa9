"""All findings by their code: what each says, in a line."""

from collections.abc import Sequence

from kappaflow.errors import ArgumentError

CODES = {
    "KF101": "log_prob is not finite",
    "KF102": "samples are not finite",
    "KF104": "log_prob differs from call to call",
    "KF201": "data, latent, data: the way back misses the point",
    "KF202": "latent, data, latent: the way back misses the latent",
    "KF203": "a log_det is not log|det| of the Jacobian",
    "KF204": "what a row gives depends on the rows beside it",
    "KF205": "log_prob is not what the base and the layers say",
    "KF206": "the density that comes with samples is not the density there",
    "KF207": "the density does not integrate to one",
    "KF208": "samples do not follow the density",
    "KF209": "the gradient is not that of log_prob",
    "KF210": "the context changes nothing",
    "KF211": "values do not follow the parameters",
    "KF212": "the state_dict does not hold the whole flow",
    "KF301": "the condition number is too large for the float type",
    "KF302": "one layer is far worse conditioned than the others",
    "KF303": "latents that are far out do not come back",
    "KF304": "the flow fills hardly any of the data's volume",
    "KF305": "a linear layer is nearly singular",
    "KF306": "under some contexts the conditioning is far worse",
    "KF401": "a part waits for its first data",
    "KF402": "calling the flow changes its state",
    "KF403": "the data is not in the units that the flow expects",
    "KF501": "on held-out rows the flow is not better than a Gaussian",
    "KF502": "on held-out images the flow is not better than histograms of pixels",
    "KF503": "a few points lie further out than any sample",
    "KF504": "on held-out rows the flow is not better than a Gaussian mixture",
    "KF505": "the held-out rows are too few to tell",
    "KF506": "training was cut short by a limit",
    "KF507": "the worst validation rows became worse while the mean improved",
    "KF601": "columns of the data depend on each other",
    "KF602": "a column of the data is constant",
    "KF603": "a column of the data is discrete, or has values that come again and again",
    "KF604": "rows of the data are repeated",
    "KF605": "float32 cannot hold a column of the data",
    "KF606": "a column of the data has heavy tails",
    "KF607": "reading the data gave a warning",
    "KF701": "a log_det is kept below float32",
    "KF702": "a layer answers in another float type",
    "KF703": "under autocast a log_det falls below float32",
    "KF704": "samples do not follow torch's generator",
    "KF801": "modes of the energy are missed",
    "KF802": "a few draws decide the importance weights",
}


def is_chosen(code: str, select: Sequence[str] = (), ignore: Sequence[str] = ()) -> bool:
    """Returns whether a code is asked for; of two prefixes that fit the longer one decides.

    Args:
        code: Such as "KF203".
        select: Codes or beginnings of them, such as "KF2"; all if empty.
        ignore: The same, left out.

    Returns:
        Whether it is.

    Example:
        >>> [code for code in ("KF201", "KF203", "KF301") if is_chosen(code, ["KF2"], ["KF203"])]
        ['KF201']
    """
    wanted = max((len(one) for one in select if code.startswith(one)), default=-1)
    left_out = max((len(one) for one in ignore if code.startswith(one)), default=-1)
    if not select:
        return left_out < 0
    return wanted > left_out


def check_codes(select: Sequence[str] = (), ignore: Sequence[str] = ()) -> None:
    """Says so if a code, or the beginning of one, is that of no finding."""
    for name, codes in (("select", select), ("ignore", ignore)):
        for one in codes:
            if not one or not any(code.startswith(one) for code in CODES):
                raise ArgumentError(
                    f"'{name}' should name findings, such as KF2 or KF203, got {one!r}: there are "
                    f"{', '.join(CODES)}."
                )
