"""The command line of the benchmarks."""

from cyclopts import App

from benchmarks.defaults import defaults
from benchmarks.dropout import dropout

app = App(name="python -m benchmarks", help=__doc__)
app.command(defaults)
app.command(dropout)

if __name__ == "__main__":
    app()
