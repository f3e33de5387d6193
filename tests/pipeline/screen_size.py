"""How large a screen is."""

from rich.cells import cell_len

# Ends of lines that are to be copied stay whole, however long the path is.
_PATHS = ("Report: ", "Log: ", "Pushed: ", "Try it: ", "The whole run took ", "The estimate took ",
          "  everything: ")  # fmt: skip


def assert_fits(output, lines=45, columns=100):
    shown = output.splitlines()
    assert len(shown) <= lines, output
    long = [line for line in shown if cell_len(line) > columns and not line.startswith(_PATHS)]
    assert not long, output
