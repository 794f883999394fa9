"""The text of docs/api.md, from the public names of the packages; Sphinx writes it.

A name belongs to the package that defines it, and has its shortest name: `kappaflow.fit` is in the
section of `kappaflow.training`.
"""

from importlib import import_module
from types import ModuleType

START = """# API

The public classes and functions, by topic. Each name leads to its page, with its arguments, an
example and a link to the source.
"""
# Packages without `__all__`, or outside of `kappaflow`, whose names are public.
PUBLIC: dict[str, tuple[str, ...]] = {
    "kappaflow.linearization": ("Linearization",),
    "kappaflow.depth": ("prune", "PrunedFlow", "PruneTrial"),
    "kappaflow.energies": ("importance_sample", "ImportanceSamples"),
    "kappaflow.flows.standardization": ("Standardization",),
    "kappaflow.mixed": ("Completed", "ColumnKind"),
    "kappaflow.runs": ("TableFit",),
    "kappaflow.rewrite.certificate": ("Difference", "Replaced"),
    "kappaflow.estimator": (),
    "kappaflow.interop.exports": ("Exported",),
    "kappaflow.interop.sbi": ("density_estimator", "FlowEstimator"),
    "kappaflow_studies": (),
}
# Heading, packages that define its names, and guides.
TOPICS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "Bijections",
        ("kappaflow.bijection", "kappaflow.bijections", "kappaflow.partition", "kappaflow.stack"),
        "What every layer offers, couplings and other layers. Guide: [your own "
        "bijection](add-a-bijection.md).",
    ),
    ("Networks", ("kappaflow.nets",), "What conditions a coupling."),
    (
        "Flows",
        ("kappaflow.flows",),
        "Recipes, base distributions, quantiles, dequantization and padding. Guides: [base "
        "distributions](bases.md), [bounded columns](domains.md), [quantiles](intervals.md), "
        "[padding](padding.md).",
    ),
    ("Files", ("kappaflow.files", "kappaflow.registry"), "Models as JSON and safetensors."),
    (
        "Training",
        ("kappaflow.training", "kappaflow.runs"),
        "Guides: [a table](tutorial-table.md), [condition budgets](condition-budget.md).",
    ),
    (
        "Tables of mixed columns",
        ("kappaflow.mixed", "kappaflow.runs.fit_table"),
        "Labels, counts, dates and missing values. Guide: [tables of mixed "
        "columns](mixed-tables.md).",
    ),
    (
        "Energies",
        ("kappaflow.energies",),
        "Densities known up to a constant. Guide: [energies](energies.md).",
    ),
    (
        "Conditioning",
        ("kappaflow.conditioning", "kappaflow.linearization"),
        "Guide: [depth and conditioning](depth-and-conditioning.md).",
    ),
    (
        "Depth",
        ("kappaflow.depth",),
        "How deep a flow has to be. Guide: [how deep?](how-deep.md).",
    ),
    (
        "Diagnosis",
        ("kappaflow.diagnosis", "kappaflow.finding", "kappaflow.goodness", "kappaflow.report"),
        "Guide: [what the doctor finds](rules.md).",
    ),
    (
        "Goodness of fit",
        ("kappaflow.goodness",),
        "Guides: [how the verdict decides](verdict.md), [intervals](intervals.md), [synthetic "
        "data](synthetic.md).",
    ),
    (
        "Factoring and rewriting",
        ("kappaflow.factor", "kappaflow.rewrite"),
        "Guides: [factoring](theory/factoring.md), [rewriting](rewriting.md).",
    ),
    (
        "Theory",
        ("kappaflow_studies.theory",),
        "`kappaflow.theory`: [theorems](theory/index.md) as functions.",
    ),
    ("Data", ("kappaflow.data",), "Guide: [tables](data.md)."),
    ("Images", ("kappaflow.images",), "Guide: [images](images.md)."),
    ("Plots", ("kappaflow.plot",), "Guide: [plots](plots.md)."),
    (
        "Other flow libraries",
        ("kappaflow.interop", "kappaflow.foreign", "kappaflow.interop.exports"),
        "Guides: [diagnose and train their flows](other-libraries.md), [move from them]"
        "(migrating.md), [export](export.md).",
    ),
    (
        "scikit-learn and sbi",
        ("kappaflow.estimator", "kappaflow.interop.sbi"),
        "Guides: [scikit-learn](scikit-learn.md), [torch.distributions, Pyro and "
        "sbi](distributions.md).",
    ),
    (
        "Testing your own parts",
        ("kappaflow.testing",),
        "Guides: [your own bijection](add-a-bijection.md), [base distributions](bases.md).",
    ),
    ("Errors", ("kappaflow.errors",), "All that the library raises on purpose."),
    (
        "Studies",
        ("kappaflow_studies",),
        "`kappaflow reproduce` runs [the studies](experiments/index.md).",
    ),
)


def public_names() -> dict[str, object]:
    """Returns the public classes and functions by their shortest names."""
    import kappaflow

    names: dict[int, tuple[str, object]] = {}
    namespaces = {
        f"kappaflow.{name}": ()
        for name in kappaflow.__all__
        if isinstance(getattr(kappaflow, name), ModuleType) and name != "registry"
    }
    for package, chosen in {"kappaflow": (), **namespaces, **PUBLIC}.items():
        module = import_module(package.replace("kappaflow.theory", "kappaflow_studies.theory"))
        for name in chosen or _exported(module):
            value = getattr(module, name)
            if callable(value) and getattr(value, "__module__", "").startswith("kappaflow"):
                names.setdefault(id(value), (f"{module.__name__}.{name}", value))
    return dict(names.values())


def api_page() -> str:
    """Returns the page as Markdown."""
    sections: dict[str, list[str]] = {title: [] for title, _, _ in TOPICS}
    for name, value in public_names().items():
        sections[_topic(name, value)].append(name)
    return "\n".join([START, *(_section(*topic, sections) for topic in TOPICS)])


def _section(title: str, _: tuple[str, ...], text: str, sections: dict[str, list[str]]) -> str:
    table = "\n".join(f"   {name}" for name in sections[title])
    options = "   :toctree: reference\n   :nosignatures:"
    block = f"```{{eval-rst}}\n.. autosummary::\n{options}\n\n{table}\n```"
    return f"## {title}\n\n{text}\n\n{block}\n"


def _topic(name: str, value: object) -> str:
    """Returns the topic whose entry is the longest start of a name or of the defining module."""
    homes = (f"{name}.", f"{getattr(value, '__module__', '')}.")
    entries = [
        (len(entry), title)
        for title, listed, _ in TOPICS
        for entry in listed
        if any(home.startswith(f"{entry}.") for home in homes)
    ]
    return max(entries)[1]


def _exported(module: ModuleType) -> list[str]:
    """Returns the names that a module lists, or those it defines."""
    defined = [name for name, value in vars(module).items() if _defines(module, name, value)]
    return list(getattr(module, "__all__", defined))


def _defines(module: ModuleType, name: str, value: object) -> bool:
    return getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
